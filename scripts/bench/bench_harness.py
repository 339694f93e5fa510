"""Timing of several programs on one machine: strict alternation, each program in a process of its own.

Every candidate sleeps while another runs. On two cores, another program that kept one busy slowed PyTorch's
OpenMP threads ninefold and TensorFlow's hardly at all, so a ratio measured then says nothing about either.
The CPU time of other programs is therefore measured along with every call, and a disturbed comparison is
marked as such.
"""

from __future__ import annotations

import argparse
import contextlib
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
from typing import Any

import cpu_info
import gpu_sampler
import process_usage

import simsiam_tf  # noqa: F401  (before TensorFlow, which it sets up)
from simsiam_tf.runtime import cores

SETTLE_SECONDS = 0.3  # until the threads of the candidate that has just run are asleep
DISTURBED = 0.1  # cores taken by other programs above which a comparison is marked
WARM_UP = 3  # calls of each candidate before the first that counts

# The call that is timed, which may return numbers by name, and metadata such as versions.
TimedCall = tuple[Callable[[], Any], dict]
Build = Callable[[], TimedCall]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A program to time. `build` runs in the process of the candidate.

    amount: work of one call, such as a number of images; seconds are divided by it.
    """

    name: str
    build: Build
    amount: float = 1.0


@dataclasses.dataclass
class Timings:
    """Results. seconds: candidate → seconds per unit of work, a median for each alternation.

    notes: candidate → medians of the numbers that its calls returned. On a GPU gpu_memory is the peak MiB of
    its tensors, and utilisation the GPU's in percent during its calls.
    """

    seconds: dict[str, list[float]]
    metadata: dict
    other_cores: float  # the largest number of cores that other programs took
    memory: dict[str, float]  # peak MiB of each candidate, its children included
    notes: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    gpu_memory: dict[str, float | None] = dataclasses.field(default_factory=dict)
    utilisation: dict[str, float | None] = dataclasses.field(default_factory=dict)

    @property
    def disturbed(self) -> bool:
        return self.other_cores > DISTURBED

    def median(self, candidate: str) -> float:
        return statistics.median(self.seconds[candidate])

    def best(self, candidates: list[str]) -> str:
        return min(candidates, key=self.median)

    def ratios(self, a: str, b: str) -> list[float]:
        """Time of a over time of b, alternation by alternation."""
        return [x / y for x, y in zip(self.seconds[a], self.seconds[b], strict=True)]

    def summary(self, a: str, b: str) -> str:
        """Median and range of the ratio a / b."""
        r = self.ratios(a, b)
        return f"{statistics.median(r):.2f} ({min(r):.2f}–{max(r):.2f})"

    def as_json(self) -> dict:
        return {
            "seconds": self.seconds, "median_seconds": {c: self.median(c) for c in self.seconds},
            "metadata": self.metadata, "cores_of_others": self.other_cores, "disturbed": self.disturbed,
            "peak_mib": self.memory, "gpu_peak_mib": self.gpu_memory, "notes": self.notes,
            "gpu_utilisation": self.utilisation,
        }  # fmt: skip

    def warning(self) -> str:
        if not self.disturbed:
            return ""
        return f"DISTURBED: other programs took up to {self.other_cores:.1f} cores. Do not quote."


def add_arguments(
    parser: argparse.ArgumentParser, repeats: int, calls: int, threads: int | None, type: Callable = int
) -> None:
    """Adds the options that most benchmarks share; the arguments are defaults.

    threads: None: all cores. type: argparse type of --threads.
    """
    default = str(threads or cores.usable_cores())
    parser.add_argument("--threads", type=type, default=default, help="threads of every candidate")
    parser.add_argument("--repeats", type=int, default=repeats, help="alternations")
    parser.add_argument("--calls", type=int, default=calls, help="calls of a candidate in each alternation")
    parser.add_argument("--json", metavar="FILE", help="file for the results")


def time_candidates(
    candidates: list[Candidate], repeats: int, calls: int, threads: int, title: str = "", device: str = "cpu"
) -> Timings:
    """Starts all candidates, then lets each make `calls` calls in turn, `repeats` times.

    threads: cores that each candidate may use. title: beginning of the lines of progress. device: "cpu" hides
    GPUs from all candidates.
    """
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    seconds: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    other_cores, metadata, memory, gpu_memory = [], {}, {}, {}
    returned: dict[str, list[dict]] = {candidate.name: [] for candidate in candidates}
    windows: dict[str, list] = {candidate.name: [] for candidate in candidates}
    with contextlib.ExitStack() as stack:
        stack.callback(_end_processes, pipes, processes)
        samples = stack.enter_context(gpu_sampler.sampling() if device == "gpu" else contextlib.nullcontext())
        for candidate in candidates:
            pipes[candidate.name], end = context.Pipe()
            process = context.Process(target=_serve, args=(end, candidate.build, threads, device))
            process.start()
            processes.append(process)
            end.close()
            if device == "cpu":
                metadata[candidate.name] = _receive(pipes[candidate.name], candidate.name)
        for candidate in candidates:  # a machine with a GPU has the cores to build all candidates at once
            if candidate.name not in metadata:
                metadata[candidate.name] = _receive(pipes[candidate.name], candidate.name)
        for repeat in range(repeats):
            for candidate in candidates:
                began, busy = time.perf_counter(), busy_seconds()
                pipes[candidate.name].send(calls)
                times, own, values = _receive(pipes[candidate.name], candidate.name)
                windows[candidate.name].append((began, time.perf_counter()))
                returned[candidate.name] += values
                other_cores.append((busy_seconds() - busy - own) / (time.perf_counter() - began))
                seconds[candidate.name].append(statistics.median(times) / candidate.amount)
                time.sleep(SETTLE_SECONDS)
            shown = "  ".join(f"{name} {values[-1]:.4g}" for name, values in seconds.items())
            print(
                f"{title} {repeat + 1}/{repeats}: {shown} s, others {other_cores[-1]:.2f} cores".strip(),
                file=sys.stderr,
            )
        for name, pipe in pipes.items():
            pipe.send(None)
            memory[name], gpu_memory[name] = _receive(pipe, name)
    notes = {
        name: {key: statistics.median(value[key] for value in values) for key in (values or [{}])[0]}
        for name, values in returned.items()
    }
    utilisation = {name: samples.mean(times) for name, times in windows.items()} if samples else {}
    return Timings(seconds, metadata, max(other_cores), memory, notes, gpu_memory, utilisation)


def _end_processes(pipes: dict[str, Connection], processes: list) -> None:
    for pipe in pipes.values():
        pipe.close()
    for process in processes:
        process.join(10)
        process.terminate()


def training_steps(components: Any, config: Any) -> tuple[Any, Any]:
    """(iterator of a run's batches from the first step on, function that trains on the next n of them)."""
    from simsiam_tf.loop import compiled_steps

    return compiled_steps.batches(components, config, 0), compiled_steps.compiled_steps(components, config)


def check_gpu(device: str) -> None:
    """Ends the process where device is "gpu" and TensorFlow finds none: it would use the CPU silently."""
    if device == "gpu":
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            raise SystemExit("--device=gpu: TensorFlow finds no GPU. Leave it out.")


def set_threads(count: int) -> None:
    """Sets TensorFlow's threads per operation, unless `count` is the default, the number of cores."""
    import tensorflow as tf

    if count != os.cpu_count():
        tf.config.threading.set_intra_op_parallelism_threads(count)


def _receive(pipe: Connection, candidate: str):  # noqa: ANN202
    try:
        return pipe.recv()
    except EOFError:
        raise SystemExit(f"{candidate} ended early; its message is above.") from None


def _serve(pipe: Connection, build: Build, threads: int, device: str) -> None:
    """Runs in a candidate's process: builds, warms up, then times as many calls as the parent asks for."""
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # all candidates share a GPU's memory
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if hasattr(os, "sched_setaffinity"):  # limits every thread pool
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    call, metadata = build()
    for _ in range(WARM_UP):
        call()
    pipe.send(metadata)
    while True:
        try:
            count = pipe.recv()
        except EOFError:
            return
        if count is None:
            pids = (os.getpid(), *process_usage.children())
            pipe.send((sum(peak_mib(pid) for pid in pids), gpu_sampler.peak_mib()))
            continue
        times, values, before = [], [], process_usage.process_seconds()
        for _ in range(count):
            began = time.perf_counter()
            value = call()
            times.append(time.perf_counter() - began)
            values += [value] if isinstance(value, dict) else []
        pipe.send((times, process_usage.process_seconds() - before, values))


def peak_mib(pid: int) -> float:
    """The peak memory of a process in MiB; NaN where unknown."""
    return _memory(pid, "VmHWM")


def current_mib(pid: int) -> float:
    """The present memory of a process in MiB; NaN where unknown."""
    return _memory(pid, "VmRSS")


def _memory(pid: int, name: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))
    except (OSError, StopIteration):
        return float("nan")


def busy_seconds() -> float:
    """CPU time that all programs have used since the machine started; NaN where unknown."""
    try:
        ticks = [int(t) for t in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return float("nan")
    user, nice, system, _idle, _wait, irq, softirq, _steal = ticks
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def machine_metadata(threads: int) -> dict:
    """CPU, threads and date, to be quoted with every result."""
    return {"cpu": _cpu(), "threads": threads, "date": datetime.date.today().isoformat()}


def _cpu() -> str:
    known = cpu_info.cpu_text()
    fast = " with bfloat16" if "avx512_bf16" in known or "amx_bf16" in known else ""
    return f"{cpu_info.cpu_name()}{fast}, {os.cpu_count()} cores"


def install_hint(*modules: str) -> str:
    """One line on how to install the missing modules; empty where none is missing."""
    hint = [name for name in modules if importlib.util.find_spec(name) is None]
    if not hint:
        return ""
    how = {"torch": "pip install 'simsiam-tf[parity]'"}
    return "; ".join(
        f"{name} is missing. Try: {how.get(name, f'pip install --no-deps {name}')}" for name in hint
    )


def write_json(path: str | None, content: dict) -> None:
    if path:
        Path(path).write_text(json.dumps(content, indent=2) + "\n")
