"""Runs one after another, or several at a time, with an estimate of the time left."""

from __future__ import annotations

import dataclasses
import functools
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from scripts.paper import runs
from simsiam_tf.runtime import signals


@dataclasses.dataclass(frozen=True)
class Job:
    """name: of the row, for people. The others: as `runs.run` takes them."""

    name: str
    seed: int
    flagfile: str
    linear: str
    folder: Path
    data_dir: str | None = None


class Queue:
    """Works through jobs in so many threads, each of which waits for one process at a time.

    done: called with a job and its figures, one at a time. say: takes a line for the user.
    """

    def __init__(self, jobs: list[Job], done: Callable[[Job, dict], Any], say: Callable[[str], Any]) -> None:
        self._waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            self._waiting.put(job)
        self.total, self.finished, self.failed = len(jobs), 0, 0
        self._done, self._say = done, say
        self._lock = threading.Lock()
        self._children: set[subprocess.Popen] = set()
        self.interrupted = False
        self._spent, self._at_a_time = 0.0, 1

    def run(self, at_a_time: int) -> None:
        """Returns when all is done, or all that ran has been ended by a signal."""
        self._at_a_time = at_a_time
        threads = [
            threading.Thread(target=self._work, args=(_cores(i, at_a_time),), daemon=True)
            for i in range(min(at_a_time, self.total))
        ]
        with signals.handle_signals(self._stop):
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():  # a wait without end would hold up signals
                    thread.join(0.2)

    def _stop(self, number: int, frame: Any) -> None:
        self.interrupted = True
        for child in list(self._children):
            child.send_signal(signal.SIGTERM)

    def _work(self, cores: list[int] | None) -> None:
        while not self.interrupted:
            try:
                job = self._waiting.get_nowait()
            except queue.Empty:
                return
            self._tell(f"{job.name}, seed {job.seed}: begins")
            began = time.monotonic()
            try:
                with runs.locked(job.folder, self._waits(job)) as lock:
                    start = functools.partial(self._start, cores, lock)
                    figures = runs.run(job.flagfile, job.linear, job.folder, job.seed, start, job.data_dir)
            except runs.Interrupted:
                self.interrupted = True
                return
            except (runs.Failed, OSError, ValueError, KeyError) as error:
                with self._lock:
                    self.failed += 1
                    self._spent += time.monotonic() - began
                self._tell(f"{job.name}, seed {job.seed}: FAILED: {error}")
                continue
            with self._lock:
                self.finished += 1
                self._spent += time.monotonic() - began
                self._done(job, figures)
            self._tell(f"{job.name}, seed {job.seed}: {in_words(figures)}")

    def _waits(self, job: Job) -> Callable[[], bool]:
        """Waits a moment for a folder in use, says so once, and returns whether a signal has come."""
        told = threading.Event()

        def wait() -> bool:
            if not told.is_set():
                told.set()
                self._tell(f"{job.name}, seed {job.seed}: waits for another process in {job.folder}")
            time.sleep(0.2)
            return self.interrupted

        return wait

    def _start(self, cores: list[int] | None, lock: IO, arguments: list[str], log: Path) -> int:
        child = runs.process(arguments, log, cores, lock)
        self._children.add(child)
        if self.interrupted:
            child.send_signal(signal.SIGTERM)
        status = child.wait()
        self._children.discard(child)
        ended = status == -signal.SIGTERM or (self.interrupted and status != 0)
        return runs.INTERRUPTED if ended else status

    def _tell(self, line: str) -> None:
        over = self.finished + self.failed
        each = self._spent / over if over else 0.0
        left = each * (self.total - over) / min(self._at_a_time, max(1, self.total - over))
        rest = f", about {_duration(left)} left" if over else ""
        with self._lock:
            self._say(f"[{over}/{self.total}{rest}] {line}")


def in_words(figures: dict) -> str:
    """A run in a line."""
    if figures["knn"] is None:
        return f"{figures['diagnosis']}: {figures['reason']} ({_duration(figures['seconds'])})"
    return (
        f"linear {figures['linear']:.1%}, kNN {figures['knn']:.1%}, std·√d {figures['std']:.2f}, "
        f"{figures['diagnosis']} ({_duration(figures['seconds'])})"
    )


def _cores(i: int, of: int) -> list[int] | None:
    """The i-th share of this process's cores; None for all of them."""
    if of == 1 or not hasattr(os, "sched_getaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // of
    return cores[i * share : (i + 1) * share] if share else None


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1.5:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
