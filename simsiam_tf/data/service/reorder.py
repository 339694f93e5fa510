"""Sorts numbered elements that other processes send in any order, and makes lost ones in this process."""

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

LATE_SECONDS = 15  # by which an element may come later than its successors
DISPATCHER_SECONDS, WORKERS_SECONDS = 60, 300  # without an element, until they count as lost
MAX_FAILURES = 3  # failed jobs in a row
ADVICE = "Start it again, and rerun the same command to continue from the newest checkpoint."


class OrderedElements:
    """Elements by number, each exactly once, from jobs that send them in any order.

    An element is a function of its number. So one that does not come is made here, and one that comes twice
    or late is dropped.

    Args:
        name: the source of the elements, for messages.
        job: (first number, token) → an iterable of (token, number, element) from that number on.
        make_here: number → element, made in this process.
        answers: () → whether the dispatcher answers.
        max_waiting: elements that may wait for an earlier one.
    """

    def __init__(
        self, name: str, job: Callable, make_here: Callable, answers: Callable, max_waiting: int
    ) -> None:
        self.name, self.job, self.make_here, self.answers = name, job, make_here, answers
        self.max_waiting = max_waiting
        self.failures = 0
        self.error: UserError | None = None
        self.arrivals: ThreadedIterator | None = None
        self.waiting: dict[int, tuple[float, Any]] = {}  # number → (time of arrival, element)
        self.token = self.received = 0
        self.last_arrival = 0.0

    def get(self, n: int) -> Any:
        """Element n; numbers go up by one.

        Raises:
            LostWorker: no element has come for too long.
            UserError: the data workers cannot make it. Either error is raised again by every later call.
        """
        if self.error is not None:
            raise self.error
        try:
            return self._get(n)
        except UserError as error:
            self.error = error
            self.close()
            raise

    def _get(self, n: int) -> Any:
        arrivals = self.arrivals or self._start_job(n)
        began = self.last_arrival = time.monotonic()
        while n not in self.waiting:
            try:
                token, number, element = arrivals.get(1.0)
                if int(token) != self.token:
                    raise RuntimeError("an element of another job came")
            except queue.Empty:
                self._check_silence()
            except Exception as error:  # noqa: BLE001 - of any type: the next job tells whether it stays
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
        job, token = self.job, secrets.randbits(62)
        self.token, self.received = token, 0
        self.arrivals = ThreadedIterator(lambda: job(first, token))
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
        """Numbers of elements that are waited for no longer: n, and others as late as n."""
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
        self._queue: queue.Queue = queue.Queue(1)
        self._closed = threading.Event()
        # NOTE: the thread holds no reference to this object, so that the object can be collected.
        threading.Thread(target=_fetch, args=(make, self._queue, self._closed), daemon=True).start()

    def get(self, seconds: float) -> Any:
        """The next element. Raises queue.Empty where none has come in time, or an error of the iterable."""
        element = self._queue.get(timeout=seconds)
        if isinstance(element, Exception):
            raise element
        return element

    def close(self) -> None:
        """Ends the thread, which then drops its iterable, as soon as the iterable's next element comes."""
        self._closed.set()


def _fetch(make: Callable[[], Iterable], elements: queue.Queue, closed: threading.Event) -> None:
    def put(element: Any) -> None:
        while not closed.is_set():
            with contextlib.suppress(queue.Full):
                elements.put(element, timeout=0.5)
                return

    try:
        for element in make():
            put(element)
            if closed.is_set():
                return
        put(RuntimeError("the job has ended"))
    except Exception as error:  # noqa: BLE001 - raised again by `get`
        put(error)
