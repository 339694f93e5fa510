"""Fair timing of rivals on one machine: strict alternation, each side in a process of its own.

Every side sleeps while another runs. One busy core of two slowed PyTorch's OpenMP threads
ninefold and TensorFlow's hardly at all: a ratio taken then is about the scheduler. So the CPU time
of other programs is measured along with every call, and a disturbed contest is marked as such.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.util
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import simsiam_tf  # noqa: F401  (before TensorFlow, which it sets up)

SETTLE_SECONDS = 0.3  # until the threads of the side that has just run are asleep
DISTURBED = 0.1  # cores taken by other programs above which a contest is marked
WARM_UP = 3  # calls of each side before the first that counts

Built = tuple[Callable[[], None], dict]  # the call that is timed, and facts
Build = Callable[[], Built]


@dataclasses.dataclass(frozen=True)
class Side:
    """A rival. `build` runs in its own process.

    amount: what one call gets done, such as images; seconds are divided by it.
    """

    name: str
    build: Build
    amount: float = 1.0


@dataclasses.dataclass
class Result:
    """Seconds per unit of each side, one median an alternation, and what the sides said."""

    seconds: dict[str, list[float]]
    facts: dict
    others: float  # cores that other programs took, at most
    memory: dict[str, float]  # MiB that each side held at its peak, its children included

    @property
    def disturbed(self) -> bool:
        return self.others > DISTURBED

    def median(self, side: str) -> float:
        return statistics.median(self.seconds[side])

    def best(self, sides: list[str]) -> str:
        return min(sides, key=self.median)

    def ratios(self, a: str, b: str) -> list[float]:
        """Time of a over time of b, alternation by alternation."""
        return [x / y for x, y in zip(self.seconds[a], self.seconds[b], strict=True)]

    def summary(self, a: str, b: str) -> str:
        """Median and range of the ratio a / b."""
        r = self.ratios(a, b)
        return f"{statistics.median(r):.2f} ({min(r):.2f}–{max(r):.2f})"

    def as_json(self) -> dict:
        medians = {side: self.median(side) for side in self.seconds}
        return {
            "seconds": self.seconds, "median_seconds": medians, "facts": self.facts,
            "cores_of_others": self.others, "disturbed": self.disturbed, "peak_mib": self.memory,
        }  # fmt: skip

    def warning(self) -> str:
        if not self.disturbed:
            return ""
        return f"DISTURBED: other programs took up to {self.others:.1f} cores. Do not quote."


def arguments(parser: argparse.ArgumentParser, repeats: int, calls: int, threads: int | None) -> None:
    """The options that every benchmark has."""
    parser.add_argument("--threads", type=int, default=threads or os.cpu_count(), help="of every side")
    parser.add_argument("--repeats", type=int, default=repeats, help="alternations")
    parser.add_argument("--calls", type=int, default=calls, help="calls of a side in each alternation")
    parser.add_argument("--json", metavar="FILE", help="where to write the figures")


def run(
    sides: list[Side], repeats: int, calls: int, threads: int, title: str = "", device: str = "cpu"
) -> Result:
    """Starts all sides, then lets each make `calls` calls in turn, `repeats` times.

    device: with "cpu" no side sees a GPU.
    """
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    others, facts = [], {}
    try:
        for side in sides:
            pipes[side.name], end = context.Pipe()
            process = context.Process(target=_serve, args=(end, side.build, threads, device))
            process.start()
            processes.append(process)
            end.close()
            if device == "cpu":
                facts[side.name] = _receive(pipes[side.name], side.name)
        for side in sides:  # beside a GPU there are cores to compile all of them at a time
            if side.name not in facts:
                facts[side.name] = _receive(pipes[side.name], side.name)
        for repeat in range(repeats):
            for side in sides:
                began, busy = time.perf_counter(), _busy_seconds()
                pipes[side.name].send(calls)
                times, own = _receive(pipes[side.name], side.name)
                others.append((_busy_seconds() - busy - own) / (time.perf_counter() - began))
                seconds[side.name].append(statistics.median(times) / side.amount)
                time.sleep(SETTLE_SECONDS)
            shown = "  ".join(f"{name} {values[-1]:.4g}" for name, values in seconds.items())
            print(
                f"{title} {repeat + 1}/{repeats}: {shown} s, others {others[-1]:.2f} cores".strip(),
                file=sys.stderr,
            )
        memory = {}
        for name, pipe in pipes.items():
            pipe.send(None)
            memory[name] = _receive(pipe, name)
    finally:
        for pipe in pipes.values():
            pipe.close()
        for process in processes:
            process.join(10)
            process.terminate()
    return Result(seconds, facts, max(others), memory)


def take_threads(count: int) -> None:
    """So many threads for TensorFlow in this process; its own choice where they are all."""
    import tensorflow as tf

    if count != os.cpu_count():
        tf.config.threading.set_intra_op_parallelism_threads(count)


def _receive(pipe: Connection, side: str):  # noqa: ANN202
    try:
        return pipe.recv()
    except EOFError:
        raise SystemExit(f"{side} ended before its time; its message is above.") from None


def _serve(pipe: Connection, build: Build, threads: int, device: str) -> None:
    """A side's process: builds, warms up, then times as many calls as it is asked for."""
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # the sides share a GPU's memory
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if hasattr(os, "sched_setaffinity"):  # thread pools of either side, whatever their number
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    call, facts = build()
    for _ in range(WARM_UP):
        call()
    pipe.send(facts)
    while True:
        try:
            count = pipe.recv()
        except EOFError:
            return
        if count is None:
            pipe.send(sum(peak_mib(pid) for pid in (os.getpid(), *_children())))
            continue
        times, before = [], _own_seconds()
        for _ in range(count):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        pipe.send((times, _own_seconds() - before))


def _own_seconds() -> float:
    """CPU time of this process and of its children that still run."""
    total = time.process_time()
    tick = os.sysconf("SC_CLK_TCK")
    for pid in _children():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / tick
    return total


def _children() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid]


def peak_mib(pid: int) -> float:
    """The most memory that a process has held; NaN where unknown."""
    return _memory(pid, "VmHWM")


def held_mib(pid: int) -> float:
    """The memory that a process holds now; NaN where unknown."""
    return _memory(pid, "VmRSS")


def _memory(pid: int, name: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))
    except (OSError, StopIteration):
        return float("nan")


def _busy_seconds() -> float:
    """CPU time that all programs have used since the machine started; NaN where unknown."""
    try:
        ticks = [int(t) for t in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return float("nan")
    user, nice, system, _idle, _wait, irq, softirq, _steal = ticks
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def machine(threads: int) -> dict:
    """What a figure has to be quoted with."""
    return {"cpu": _cpu(), "threads": threads, "date": datetime.date.today().isoformat()}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    name = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )
    fast = " with bfloat16" if any("avx512_bf16" in line or "amx_bf16" in line for line in lines) else ""
    return f"{name}{fast}, {os.cpu_count()} cores"


def missing(*modules: str) -> str:
    """One line on what to install, empty when all modules are there."""
    lacking = [name for name in modules if importlib.util.find_spec(name) is None]
    if not lacking:
        return ""
    how = {"torch": "pip install 'simsiam-tf[parity]'"}
    return "; ".join(
        f"{name} is missing. Try: {how.get(name, f'pip install --no-deps {name}')}" for name in lacking
    )


def write_json(path: str | None, content: dict) -> None:
    if path:
        Path(path).write_text(json.dumps(content, indent=2) + "\n")
