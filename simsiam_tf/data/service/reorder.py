"""Elements that others make and send in any order, in order again; and what never comes, made here."""

from __future__ import annotations

import contextlib
import logging
import queue
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from simsiam_tf.runtime.errors import LostWorker, UserError

log = logging.getLogger("simsiam_tf")

LATE_SECONDS = 15  # after later ones, an element counts as lost
LOST_SECONDS = 60, 300  # without an element: a dispatcher that is gone, data workers that are
JOBS = 3  # in a row that deliver next to nothing
MEND = "Start it again, and rerun the same command to continue from the newest checkpoint."


class Ordered:
    """Elements by number, each exactly once, out of jobs that give them in any order.

    An element is a function of its number, so that one which does not come may be made here, and
    one that comes twice or late may be dropped.

    Args:
        name: of where they come from, for messages.
        job: (first number, token) → an iterable of (token, number, element) from there on.
        here: number → element, made in this process.
        there: whether the other side answers at all.
        held: the most elements that wait for an earlier one.
    """

    def __init__(self, name: str, job: Callable, here: Callable, there: Callable, held: int) -> None:
        self.name, self.job, self.here, self.there, self.most = name, job, here, there, held
        self.failures = 0
        self.arrivals: Arrivals | None = None
        self.ended: UserError | None = None

    def get(self, n: int) -> Any:
        """Element n; numbers go up by one.

        Raises:
            LostWorker: nothing has come for long.
            UserError: the others cannot make it. Either is raised again whenever more is asked for.
        """
        if self.ended is not None:
            raise self.ended
        try:
            return self._get(n)
        except UserError as error:
            self.ended = error
            self.close()
            raise

    def _get(self, n: int) -> Any:
        if self.arrivals is None:
            self._ask(n)
        began = self.heard = time.monotonic()
        while n not in self.held:
            try:
                token, number, element = self.arrivals.get(1.0)
                if int(token) != self.token:
                    raise RuntimeError("an element of another job came")
            except queue.Empty:
                self._check_quiet()
            except Exception as error:  # noqa: BLE001 - of any kind: the next job tells whether it stays
                self._ask_again(n, error)
            else:
                self.heard, self.came = time.monotonic(), self.came + 1
                if number >= n:
                    self.held[int(number)] = self.heard, element
            for lost in self._lost(n, began):
                log.warning("%s: element %d did not come; it is made here", self.name, lost)
                self.held[lost] = time.monotonic(), self.here(lost)
        return self.held.pop(n)[1]

    def _ask(self, first: int) -> None:
        self.close()
        self.held: dict[int, tuple[float, Any]] = {}
        # NOTE: a dispatcher that was restarted without its state hands out its old numbers again, and
        # a data worker may then take a new job for another run's old one. The token tells.
        job, token = self.job, secrets.randbits(62)
        self.token, self.came = token, 0
        self.arrivals = Arrivals(lambda: job(first, token))

    def _ask_again(self, n: int, error: Exception) -> None:
        self.failures = 1 if self.came > self.most else self.failures + 1
        reason = " ".join(str(getattr(error, "message", error)).split())
        reason = re.sub(r"^\{\{.*?\}\} ", "", reason)[:400]
        if self.failures >= JOBS:
            raise UserError(
                f"{self.name}: the data workers failed: {reason}. They need the same files under the same "
                "paths, and the same versions."
            ) from error
        log.warning("%s: %s. Asked anew from element %d on", self.name, reason, n)
        self._ask(n)

    def _lost(self, n: int, began: float) -> list[int]:
        """The elements that are waited for no longer: n and others as late as it."""
        if n in self.held or not self.held:
            return []
        if len(self.held) >= self.most:
            return [n]
        late = time.monotonic() - LATE_SECONDS
        old = [number for number, (arrived, _) in self.held.items() if max(arrived, began) < late]
        return [number for number in range(n, max(old, default=n)) if number not in self.held]

    def _check_quiet(self) -> None:
        quiet = time.monotonic() - self.heard
        if quiet > LOST_SECONDS[0] and not self.there():
            raise LostWorker(f"{self.name}: the dispatcher has been gone for {quiet:.0f} s. {MEND}")
        if quiet > LOST_SECONDS[1]:
            raise LostWorker(f"{self.name}: no data worker has delivered for {quiet:.0f} s. {MEND}")

    def close(self) -> None:
        """Lets the job go."""
        if self.arrivals is not None:
            self.arrivals.leave()


class Arrivals:
    """What `make` gives, fetched by a thread of its own, so that waiting for it can end."""

    def __init__(self, make: Callable[[], Iterable]) -> None:
        self._queue: queue.Queue = queue.Queue(1)
        self._left = threading.Event()
        threading.Thread(target=_fetch, args=(make, self._queue, self._left), daemon=True).start()

    def get(self, seconds: float) -> Any:
        """The next one. Raises queue.Empty where none has come, or what the making raised."""
        found = self._queue.get(timeout=seconds)
        if isinstance(found, Exception):
            raise found
        return found

    def leave(self) -> None:
        """Ends the thread, and lets go of what it iterates over, as soon as that returns."""
        self._left.set()


def _fetch(make: Callable[[], Iterable], into: queue.Queue, left: threading.Event) -> None:
    def put(what: Any) -> None:
        waiting = True
        while waiting and not left.is_set():
            with contextlib.suppress(queue.Full):
                into.put(what, timeout=0.5)
                waiting = False

    try:
        for element in make():
            put(element)
            if left.is_set():
                return
        put(RuntimeError("the job has ended"))
    except Exception as error:  # noqa: BLE001 - for whoever waits
        put(error)
