"""Sorts numbered elements that other processes send in any order, and makes lost ones in this process."""

from __future__ import annotations

import dataclasses
import functools
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

LATE_SECONDS = 15  # by which an element may arrive later than its successors
# Without an element for so long, a dispatcher that does not answer, or all data workers, count as lost.
DISPATCHER_SECONDS, WORKERS_SECONDS = 60, 300
MAX_FAILURES = 3  # failed jobs in a row
ADVICE = "Start it again, and rerun the same command to continue from the newest checkpoint."


@dataclasses.dataclass
class OrderedElements:
    """Elements by number, each exactly once, from jobs that send them in any order.

    An element is a function of its number. So one that does not come is made here, and one that comes twice
    or late is dropped.

    name: of the service, for messages. job: (first number, token) → (token, number, element) from
    the first number on. make_here: number → element, made in this process. answers: () → whether the
    dispatcher answers. max_waiting: most elements that wait for an earlier one. Other fields are state.
    """

    name: str
    job: Callable[[int, int], Iterable[tuple[Any, Any, Any]]]
    make_here: Callable[[int], Any]
    answers: Callable[[], bool]
    max_waiting: int
    # Number → (time of arrival, element).
    waiting: dict[int, tuple[float, Any]] = dataclasses.field(default_factory=dict)
    arrivals: ThreadedIterator | None = None
    failures: int = 0
    token: int = 0
    received: int = 0
    last_arrival: float = 0.0

    def get(self, n: int) -> Any:
        """Element n; each call has to ask for the number after the last.

        Raises LostWorker where no element has come for too long, UserError where data workers cannot make it.
        """
        arrivals = self.arrivals or self._start_job(n)
        began = self.last_arrival = time.monotonic()
        while n not in self.waiting:
            try:
                token, number, element = arrivals.get(1.0)
                if int(token) != self.token:
                    raise RuntimeError("an element of another job came")
            except queue.Empty:
                self._check_silence()
            except Exception as error:  # noqa: BLE001 - of any type: the next job shows whether the error stays
                arrivals = self._restart_job(n, error)
            else:
                self.last_arrival, self.received = time.monotonic(), self.received + 1
                if number >= n:
                    self.waiting[int(number)] = self.last_arrival, element
            for lost in self._lost_numbers(n, began):
                log.warning("%s: element %d did not come; it is made here", self.name, lost)
                self.waiting[lost] = time.monotonic(), self.make_here(lost)
        return self.waiting.pop(n)[1]

    def _start_job(self, first: int) -> ThreadedIterator:
        self.close()
        self.waiting.clear()
        # NOTE: a dispatcher that was restarted without its state hands out its old numbers again, and
        # a data worker may then take a new job for another run's old one. The token tells them apart.
        self.token, self.received = secrets.randbits(62), 0
        self.arrivals = ThreadedIterator(functools.partial(self.job, first, self.token))
        return self.arrivals

    def _restart_job(self, n: int, error: Exception) -> ThreadedIterator:
        self.failures = 1 if self.received > self.max_waiting else self.failures + 1
        reason = " ".join(str(getattr(error, "message", error)).split())
        reason = re.sub(r"^\{\{.*?\}\} ", "", reason)[:400]
        if self.failures >= MAX_FAILURES:
            raise UserError(
                f"{self.name}: the data workers failed: {reason}. They need the same files under the same "
                "paths, and the same versions."
            ) from error
        log.warning("%s: %s. Asking again, from element %d on", self.name, reason, n)
        return self._start_job(n)

    def _lost_numbers(self, n: int, began: float) -> list[int]:
        """Numbers of missing elements to make here instead of waiting longer: n, and others as late as n."""
        if n in self.waiting or not self.waiting:
            return []
        if len(self.waiting) >= self.max_waiting:
            return [n]
        late = time.monotonic() - LATE_SECONDS
        old = [number for number, (arrived, _) in self.waiting.items() if max(arrived, began) < late]
        return [number for number in range(n, max(old, default=n)) if number not in self.waiting]

    def _check_silence(self) -> None:
        seconds = time.monotonic() - self.last_arrival
        if seconds > DISPATCHER_SECONDS and not self.answers():
            raise LostWorker(f"{self.name}: the dispatcher has been gone for {seconds:.0f} s. {ADVICE}")
        if seconds > WORKERS_SECONDS:
            raise LostWorker(f"{self.name}: no data worker has delivered for {seconds:.0f} s. {ADVICE}")

    def close(self) -> None:
        """Ends the job."""
        if self.arrivals is not None:
            self.arrivals.close()


class ThreadedIterator:
    """The elements of `make()`, fetched by a thread of its own, so that waiting for one can time out."""

    def __init__(self, make: Callable[[], Iterable]) -> None:
        self._elements: queue.SimpleQueue = queue.SimpleQueue()
        self._wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        threading.Thread(target=self._fetch, args=(make,), daemon=True).start()

    def get(self, seconds: float) -> Any:
        """The next element. Raises queue.Empty where none has come in time, or an error of the iterable."""
        element = self._elements.get(timeout=seconds)
        self._wanted.put(True)
        if isinstance(element, Exception):
            raise element
        return element

    def close(self) -> None:
        """Ends the thread, which then drops its iterable, as soon as the iterable's next element comes."""
        self._wanted.put(False)

    def _fetch(self, make: Callable[[], Iterable]) -> None:
        try:
            for element in make():
                self._elements.put(element)
                if not self._wanted.get():
                    return
            self._elements.put(RuntimeError("the job has ended"))
        except Exception as error:  # noqa: BLE001 - raised again by `get`
            self._elements.put(error)
