"""What a step of a model computes and sends, and how long that takes on a system of accelerators."""

from __future__ import annotations

import dataclasses

import interconnects

# All-reduces of a BN layer for one view (nets/norm.py): mean and variance, and the gradients of both. The
# moving statistics come out alike on every replica and are not sent.
EXCHANGES = {"forward": 2, "backward": 2}


@dataclasses.dataclass(frozen=True)
class Sent:
    """What one step computes and sends, as counted on a model."""

    parameters: int  # that are trained: so many float32 gradients
    layers: int  # of BN
    channels: int  # of all of them together
    views: int
    d: int
    flops: float  # an image, all its views, forward and backward
    exchanges: int = sum(EXCHANGES.values())  # all-reduces a BN layer and view

    @property
    def gradient_bytes(self) -> int:
        return 4 * self.parameters

    @property
    def norm_calls(self) -> int:
        return self.exchanges * self.views * self.layers

    @property
    def norm_bytes(self) -> int:
        return 4 * self.exchanges * self.views * self.channels

    def z_bytes(self, batch: float) -> float:
        return 4 * self.d * batch


@dataclasses.dataclass(frozen=True)
class Step:
    """Seconds of a step's parts."""

    compute: float
    gradient: float = 0.0
    norm: float = 0.0
    z: float = 0.0

    @property
    def bare(self) -> float:
        """Nothing hides behind anything: what the code does now."""
        return self.compute + self.gradient + self.norm + self.z

    @property
    def hidden(self) -> float:
        """The other bound: all that is sent hides behind the arithmetic, as far as it is no longer."""
        return max(self.compute, self.bare - self.compute)

    @property
    def packed(self) -> float:
        """Only the gradient hides."""
        return max(self.compute, self.gradient) + self.norm + self.z

    def efficiency(self, seconds: float) -> float:
        return self.compute / seconds


def step(system: interconnects.System, n: int, batch: float, sent: Sent, z: bool = True) -> Step:
    """A step of n accelerators with `batch` images each.

    z: whether the embeddings of the whole batch are gathered, as the loop does in every step.
    """
    small = system.small(n)
    norm = sent.norm_calls * small + system.all_reduce(n, sent.norm_bytes) - system.all_reduce(n, 0)
    return Step(
        compute=batch / system.pairs,
        gradient=system.all_reduce(n, sent.gradient_bytes),
        norm=norm,
        z=system.all_gather(n, sent.z_bytes(n * batch)) + small if z else 0.0,
    )


def counted(flagfile: str, size: int = 224, channels: int = 3) -> Sent:
    """What a step of a flagfile's model sends; builds the model and traces its step for one image."""
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
    return Sent(
        parameters=sum(int(np.prod(v.shape)) for v in model.learned_variables()),
        layers=len(means),
        channels=sum(means),
        views=model.view_count,
        d=model.d,
        flops=float(sum(onednn_floor.flops(op) for op in onednn_floor.needed(traced))),
    )
