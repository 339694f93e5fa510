"""Counts what a step of a model computes and sends, and computes its time on a system of accelerators."""

from __future__ import annotations

import dataclasses

import interconnects

# All-reduces of a BN layer (nets/batch_norm.py), for all views together: moments and their gradients. Each
# has three numbers for a channel and view. The moving statistics are equal on every replica and are not sent.
NORM_ALL_REDUCES = {"forward": 1, "backward": 1}
NORM_BYTES = 3 * 8  # float64


@dataclasses.dataclass(frozen=True)
class StepCounts:
    """Counts of one step of a model: its arithmetic, and the numbers that it sends."""

    parameters: int  # trained parameters, each with a float32 gradient
    layers: int  # BN layers
    channels: int  # of all BN layers together
    views: int
    d: int
    flops: float  # per image: all views, forward and backward

    @property
    def gradient_bytes(self) -> int:
        return 4 * self.parameters

    @property
    def norm_all_reduces(self) -> int:
        return sum(NORM_ALL_REDUCES.values()) * self.layers

    @property
    def norm_bytes(self) -> int:
        return NORM_BYTES * sum(NORM_ALL_REDUCES.values()) * self.views * self.channels

    def z_bytes(self, batch: float) -> float:
        return 4 * self.d * batch


@dataclasses.dataclass(frozen=True)
class StepSeconds:
    """Seconds of a step: `compute` for its arithmetic, the others for what it sends."""

    compute: float
    gradient: float = 0.0
    norm: float = 0.0

    @property
    def no_overlap(self) -> float:
        """Seconds of a step in which nothing overlaps, as in the present code."""
        return self.compute + self.gradient + self.norm

    @property
    def full_overlap(self) -> float:
        """Seconds of a step in which all messages overlap the arithmetic, which no code reaches."""
        return max(self.compute, self.no_overlap - self.compute)

    @property
    def gradient_overlap(self) -> float:
        """Seconds of a step in which only the gradient's messages overlap the arithmetic."""
        return max(self.compute, self.gradient) + self.norm

    def efficiency(self, seconds: float) -> float:
        return self.compute / seconds


def step_seconds(system: interconnects.System, n: int, batch: float, sent: StepCounts) -> StepSeconds:
    """Seconds of a step on n accelerators with `batch` images each."""
    small = system.small(n)
    norm = sent.norm_all_reduces * small + system.all_reduce(n, sent.norm_bytes) - system.all_reduce(n, 0)
    return StepSeconds(
        compute=batch / system.images,
        gradient=system.all_reduce(n, sent.gradient_bytes),
        norm=norm,
    )


def count_step(flagfile: str, size: int = 224, channels: int = 3) -> StepCounts:
    """Counts a step of a flagfile's model: builds the model and traces its step for one image.

    size, channels: side of the views in pixels, and channels of the images.
    """
    import numpy as np
    import onednn_floor
    import tensorflow as tf

    from simsiam_tf import nets
    from simsiam_tf.command_line import cli
    from simsiam_tf.config import PretrainConfig
    from simsiam_tf.training import build_run

    config = cli.parse(PretrainConfig, [f"--flagfile={flagfile}"])
    nets.fast_cpu_convolutions(False)  # an accelerator computes the products themselves
    try:
        model = build_run.build_model(config, channels, size)
        model.compile(build_run.build_optimizer(config, 10_000, 10**6))
        model.optimizer.build(model.learned_variables())
        views = tuple(tf.TensorSpec([1, size, size, channels]) for _ in range(model.view_count))
        traced = tf.function(model.step, autograph=False).get_concrete_function(views)
    finally:
        nets.fast_cpu_convolutions(True)
    means = [int(v.shape[0]) for v in model.weights if v.path.endswith("moving_mean")]
    return StepCounts(
        parameters=sum(int(np.prod(v.shape)) for v in model.learned_variables()),
        layers=len(means),
        channels=sum(means),
        views=model.view_count,
        d=model.d,
        flops=float(sum(onednn_floor.flops(op) for op in onednn_floor.executed_operations(traced))),
    )
