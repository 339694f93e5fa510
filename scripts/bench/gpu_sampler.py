"""The use of a GPU: what nvidia-smi samples beside a program, and the peak memory of its tensors."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

PERIOD = 200  # ms between two samples
QUERY = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits")


def gpu_id() -> str:
    """The GPU that programs use, for nvidia-smi: the first of CUDA_VISIBLE_DEVICES."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"


class Samples:
    """Utilisation of the GPU in percent, with the times (`time.perf_counter`) at which it was read."""

    def __init__(self) -> None:
        self.values: list[tuple[float, float]] = []

    def mean(self, windows: list[tuple[float, float]]) -> float | None:
        """The mean over the samples in so many (begin, end); None without any."""
        seen = [v for at, v in self.values if any(begin <= at <= end for begin, end in windows)]
        return statistics.mean(seen) if seen else None


@contextlib.contextmanager
def sampling() -> Iterator[Samples]:
    """Samples as long as the block runs; there are no samples where nvidia-smi is missing."""
    samples = Samples()
    try:
        process = subprocess.Popen(
            [*QUERY, f"--id={gpu_id()}", f"--loop-ms={PERIOD}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    except OSError:
        yield samples
        return

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with contextlib.suppress(ValueError):  # "[N/A]"
                samples.values.append((time.perf_counter(), float(line)))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield samples
    finally:
        process.terminate()
        process.wait()
        reader.join()


def peak_mib() -> float | None:
    """The peak memory of this process's tensors on GPU 0 in MiB; None without a GPU."""
    if "tensorflow" in sys.modules:
        import tensorflow as tf

        if tf.config.list_logical_devices("GPU"):
            return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20
    elif "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 2**20
    return None
