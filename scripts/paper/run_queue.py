"""A queue of runs, one or several at a time, with an estimate of the time left."""

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
    """A run to make. name: name of its row in the table; other fields: arguments of `runs.complete_run`."""

    name: str
    seed: int
    flagfile: str
    linear: str
    folder: Path
    data_dir: str | None = None


class RunQueue:
    """Runs jobs in threads, each of which waits for one process at a time.

    done: called with a job and its metrics, by one thread at a time. say: takes a line for the user.
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
        """Runs the jobs, `at_a_time` of them at once; returns when all have ended or been stopped."""
        self._at_a_time = at_a_time
        threads = [
            threading.Thread(target=self._work, args=(_cores(i, at_a_time),), daemon=True)
            for i in range(min(at_a_time, self.total))
        ]
        with signals.handle_signals(self._stop):
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():  # join() without a timeout would block signals
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
                with runs.folder_lock(job.folder, self._wait_for_folder(job)) as lock:
                    start = functools.partial(self._start, cores, lock)
                    metrics = runs.complete_run(
                        job.flagfile, job.linear, job.folder, job.seed, start, job.data_dir
                    )
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
                self._done(job, metrics)
            self._tell(f"{job.name}, seed {job.seed}: {summary_line(metrics)}")

    def _wait_for_folder(self, job: Job) -> Callable[[], bool]:
        """Makes a function that waits 0.2 s for the folder and returns whether a signal has come.

        Its first call tells the user that another process uses the folder.
        """
        announced = threading.Event()

        def wait() -> bool:
            if not announced.is_set():
                announced.set()
                self._tell(f"{job.name}, seed {job.seed}: waits for another process in {job.folder}")
            time.sleep(0.2)
            return self.interrupted

        return wait

    def _start(self, cores: list[int] | None, lock: IO, arguments: list[str], log: Path) -> int:
        child = runs.start_process(arguments, log, cores, lock)
        self._children.add(child)
        if self.interrupted:
            child.send_signal(signal.SIGTERM)
        status = child.wait()
        self._children.discard(child)
        ended = status == -signal.SIGTERM or (self.interrupted and status != 0)
        return runs.INTERRUPTED if ended else status

    def _tell(self, line: str) -> None:
        ended = self.finished + self.failed
        each = self._spent / ended if ended else 0.0
        left = each * (self.total - ended) / min(self._at_a_time, max(1, self.total - ended))
        rest = f", about {_duration(left)} left" if ended else ""
        with self._lock:
            self._say(f"[{ended}/{self.total}{rest}] {line}")


def summary_line(metrics: dict) -> str:
    """One line on a finished run."""
    if metrics["knn"] is None:
        return f"{metrics['diagnosis']}: {metrics['reason']} ({_duration(metrics['seconds'])})"
    return (
        f"linear {metrics['linear']:.1%}, kNN {metrics['knn']:.1%}, std·√d {metrics['std']:.2f}, "
        f"{metrics['diagnosis']} ({_duration(metrics['seconds'])})"
    )


def _cores(i: int, of: int) -> list[int] | None:
    """The i-th of `of` equal shares of this process's cores; None: all cores."""
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
