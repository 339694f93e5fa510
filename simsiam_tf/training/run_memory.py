"""The memory that a run will take, estimated before it starts."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

from simsiam_tf.data import pipeline
from simsiam_tf.data.sources.decoded import bytes_in_memory
from simsiam_tf.loop.task import RunComponents
from simsiam_tf.runtime.devices import on_cpu
from simsiam_tf.training import step_memory

# TensorFlow's copies of the graph, compiled kernels and buffers of the libraries; 70 to 340 MiB were measured
# in eight runs, with no relation to the number of operations.
COMPILED_BYTES = 180 * 2**20
# Matrices [F, F] of whitening: sum and mean of the covariance, its axes, LAPACK's two, and the product.
WHITENING_MATRICES = 6
BATCHES_IN_USE = 2  # besides the prefetched ones: one that the step reads, one that is being joined
TENSORS_A_PIECE = 3  # of a piece of a batch that is being made: its images, its crops, its views
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class RunMemory:
    """Bytes that a training process takes at its peak, as the system counts them (resident memory).

    current: libraries, lists of images, images that are arrays, weights, the optimizer's state, and the
        step's graph in Python: the memory of this process until now.
    compiled: the step's graph in TensorFlow, and its kernels.
    step: tensors of a step: activations, gradients, and the workspaces of convolutions (`step_memory`). With
        GPUs and TPUs, they are in the devices' memory.
    batches: views that are being made, or wait for their step.
    export: a second copy of the networks, and the matrices of their whitening. It does not fit into the
        memory of the steps, which stays allocated.
    images: decoded images that stay in memory.
    decoding: further copies of these images before the first step.
    variables: weights and the optimizer's state of a replica; on CPUs they are part of `current`, too.
    replicas: number of replicas in this process.
    """

    current: int
    compiled: int
    step: int
    batches: int
    export: int = 0
    images: int = 0
    decoding: int = 0
    variables: int = 0
    replicas: int = 1

    @property
    def process(self) -> int:
        """The peak of a process that trains on CPUs."""
        run = self.compiled + self.step + self.batches + self.export
        return self.current + self.images + max(self.decoding, run)

    def in_words(self) -> str:
        """The peak and its parts, as text."""
        if on_cpu():
            parts = {
                "libraries, weights and the optimizer": self.current, "the step": self.step,
                "its graph and kernels": self.compiled, "batches": self.batches, "the export": self.export,
                "images": self.images,
            }  # fmt: skip
            listed = ", ".join(f"{size / GIB:.2f} for {name}" for name, size in parts.items() if size)
            return f"{self.process / GIB:.2f} GiB at the peak of the process: {listed}"
        device = self.variables + self.step // self.replicas
        host = dataclasses.replace(self, step=0).process
        return (
            f"{device / GIB:.2f} GiB on each device, {self.variables / GIB:.2f} of these for weights and the "
            f"optimizer; {host / GIB:.2f} GiB of the host"
        )


def estimate(components: RunComponents, config: Any, whitened: int = 0) -> RunMemory:
    """Estimates the memory of a run on this machine, without evaluations by the monitor.

    Traces the step, but does not run it. Reads config.batch_size, config.seed, config.jit_compile and, where
    there is one, config.decoded_size.

    whitened: number of the features that the export whitens; 0 without whitening.
    """
    model = components.model
    step = step_memory.trace(components, config)
    images, decoding = bytes_in_memory(components.source, getattr(config, "decoded_size", None))
    variables = [*model.variables, *model.optimizer.variables]
    return RunMemory(
        current=peak_until_now(),
        compiled=COMPILED_BYTES,
        step=step.peak_bytes,
        batches=batch_bytes(step.batch, components),
        export=4 * model.count_params() + 8 * WHITENING_MATRICES * whitened**2,
        images=images,
        decoding=decoding,
        variables=sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in variables)
        + getattr(model, "table_bytes", 0),
        replicas=components.strategy.num_replicas_in_sync // components.workers.count,
    )


def batch_bytes(batch: Any, components: RunComponents) -> int:
    """The bytes of batches that are being made, or wait for their step.

    batch: specifications of the tensors of a batch, for all of this process's replicas.
    """
    size = sum(math.prod(spec.shape) * spec.dtype.size for spec in tf.nest.flatten(batch, True))
    pixels = sum(a.size**2 for a in components.views.each) * components.source.channels
    rows = max(1, pipeline.PIECE_PIXELS // components.views.augmentation.size**2)
    piece = rows * pixels * tf.float32.size
    pieces = TENSORS_A_PIECE * (pipeline.PARALLEL or 1) * min(piece, size)
    return (pipeline.PREFETCHED_STEPS + BATCHES_IN_USE) * size + pieces


def peak_until_now() -> int:
    """The largest resident memory that this process has had, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource  # Windows has none

    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
