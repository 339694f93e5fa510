"""Batch normalisation by the formulas of PyTorch's (Sync)BatchNorm."""

from __future__ import annotations

import contextlib
import contextvars
import sys
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from simsiam_tf.runtime.devices import on_gpu

USUAL_MOMENTUM = 0.9  # momentum of PyTorch's BN and of this package's networks; `lower_momentum` keeps it
MIN_MOMENTUM = 0.5
UPDATES = 10  # the momentum 1 − UPDATES/steps leaves at most e^−UPDATES of the initial value
SETTLED = 0.01  # largest share of the initial value in a moving average that follows the batches

# Local to the thread, since a strategy runs each replica in a thread of its own.
_VIEWS = contextvars.ContextVar("views", default=1)


@contextlib.contextmanager
def separate_views(count: int) -> Iterator[None]:
    """Within the block, synchronised BN splits the rows of a batch into `count` views of equal size.

    Each view is a BN batch of its own, as if the network were called once for each view; but a layer sends
    one message for all views.
    """
    token = _VIEWS.set(count)
    try:
        yield
    finally:
        _VIEWS.reset(token)


def joins_views(network: keras.layers.Layer) -> bool:
    """Whether `separate_views` can be used: on several replicas, where only `BatchNorm` keeps statistics."""
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return False
    return all(isinstance(layer, BatchNorm) for layer in _with_statistics(network))


@keras.saving.register_keras_serializable("simsiam_tf")
class BatchNorm(keras.layers.Layer):
    """BN with statistics over the global batch of one view (Sec. 3); by default momentum 0.9 and ε 1e-5.

    Differs from `keras.layers.BatchNormalization` where the paper's code does: the moving variance is
    unbiased, and the statistics are those of all replicas. One replica uses the fused kernel. As in
    Keras, a layer with `trainable = False` keeps its moving statistics and normalises with them, also in
    training (but see `batch_statistics`).

    Args:
        momentum: share of the old moving statistic that a step keeps.
        epsilon: number added to the variance.
        affine: whether the output is scaled by γ and, with `center`, shifted by β.
        zero_gamma: whether γ starts at 0 (the last BN of a residual block).
        batch_statistics: whether training uses the batch's statistics although `trainable` is False, as in
            momentum encoders.
        center: whether an affine output is shifted.

    Attributes:
        is_local: whether training normalises each replica by its own statistics and does not update the
            moving ones.

    Call: [B, d] or [B, H, W, C] → the same shape and dtype.
    """

    def __init__(
        self,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        affine: bool = True,
        zero_gamma: bool = False,
        batch_statistics: bool = False,
        center: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.momentum, self.epsilon = momentum, epsilon
        self.affine, self.zero_gamma, self.center = affine, zero_gamma, center
        self.batch_statistics = batch_statistics
        self.is_local = False

    def build(self, input_shape) -> None:
        shape = (input_shape[-1],)
        # NOTE: all replicas assign the same values, so there is nothing to aggregate.
        statistic = {"shape": shape, "trainable": False, "autocast": False, "aggregation": "none"}
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", **statistic)
        self.moving_variance = self.add_weight(name="moving_variance", initializer="ones", **statistic)
        if self.affine:
            start = "zeros" if self.zero_gamma else "ones"
            self.gamma = self.add_weight(name="gamma", shape=shape, initializer=start, autocast=False)
        if self.affine and self.center:
            self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros", autocast=False)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        channels = x.shape[-1]
        gamma = tf.convert_to_tensor(self.gamma) if self.affine else tf.ones([channels])
        beta = tf.convert_to_tensor(self.beta) if self.affine and self.center else tf.zeros([channels])
        training = bool(training) and (self.trainable or self.batch_statistics)
        context = tf.distribute.get_replica_context()
        if training and not self.is_local and context is not None and context.num_replicas_in_sync > 1:
            return self._synchronised(x, gamma, beta, context)
        x4 = tf.reshape(x, [-1, 1, 1, channels]) if len(x.shape) == 2 else x
        mean = [] if training else tf.convert_to_tensor(self.moving_mean)
        variance = [] if training else tf.convert_to_tensor(self.moving_variance)
        fused = _fused_by_xla if training and x.dtype == tf.bfloat16 and on_gpu() else _fused
        y = fused(x4, gamma, beta, mean, variance, self.epsilon, training)
        if training and not self.is_local:
            self._update_moving(y.batch_mean, y.batch_variance)  # the op's variance is unbiased
        return tf.reshape(y.y, tf.shape(x)) if len(x.shape) == 2 else y.y

    def _synchronised(self, x, gamma, beta, context) -> tf.Tensor:
        """Normalises each view by its moments over all replicas, which are sent in one message.

        A replica sends the variance of its rows, their mean and the mean's square. The variance between the
        replicas' means is a difference of squares, which may be much larger than the variance: so it is
        computed in float64, and from distances to the moving mean, since TPUs have float32 alone.
        """
        views, replicas, channels = _VIEWS.get(), context.num_replicas_in_sync, x.shape[-1]
        rows = tf.reshape(x, [views, -1, channels])
        compiled = x.dtype == tf.bfloat16 and on_gpu()  # float32 copies of maps would be written and read
        moments, normalise = (_moments_by_xla, _normalise_by_xla) if compiled else (_moments, _normalise)
        on_tpu = isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy)
        wide = tf.float32 if on_tpu else tf.float64
        shift = tf.cast(tf.convert_to_tensor(self.moving_mean), wide)
        local_mean, local_variance = (tf.cast(moment, wide) for moment in moments(rows))
        distance = local_mean - shift
        sums = tf.stack([distance, tf.square(distance), local_variance])  # [3, views, channels]
        distance, square, variance = tf.unstack(
            context.all_reduce(tf.distribute.ReduceOp.SUM, sums) / replicas
        )
        variance += tf.maximum(square - tf.square(distance), 0.0)
        mean, variance = tf.cast(distance + shift, tf.float32), tf.cast(variance, tf.float32)
        count = tf.cast(tf.shape(rows)[1] * replicas, tf.float32)
        scale = tf.math.rsqrt(variance + self.epsilon) * gamma
        y = normalise(rows, mean, scale, beta)
        for i in range(views):
            self._update_moving(mean[i], variance[i] * count / tf.maximum(count - 1.0, 1.0))
        return tf.reshape(y, tf.shape(x))

    def _update_moving(self, mean, variance) -> None:
        keep = self.momentum
        self.moving_mean.assign(keep * self.moving_mean + (1.0 - keep) * mean)
        self.moving_variance.assign(keep * self.moving_variance + (1.0 - keep) * variance)

    def get_config(self) -> dict:
        names = ("momentum", "epsilon", "affine", "zero_gamma", "batch_statistics", "center")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def synchronise(network: keras.Model) -> None:
    """Makes `keras.layers.BatchNormalization` use the statistics of all replicas, if there are several.

    Such layers keep Keras' formula: their moving variance follows the biased variance of the batch. A line on
    stderr names the layers of other classes with moving means, which use the statistics of one replica.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return
    others = []
    for layer in _with_statistics(network):
        if type(layer) is keras.layers.BatchNormalization:
            layer.synchronized = True
        elif not isinstance(layer, BatchNorm):
            others.append(layer.name)
    if others:
        print(
            f"{network.name}: its layers {', '.join(others[:5])}{', …' * (len(others) > 5)} take statistics "
            "of one replica's images alone; other replicas may keep others. One device avoids it.",
            file=sys.stderr,
        )


def lower_momentum(network: keras.layers.Layer, steps: int) -> tuple[float, float] | None:
    """Lowers BN's momentum where a run of `steps` steps is too short for its moving averages.

    A moving average keeps the share momentum^n of its initial value after n updates: 98 % after 24 updates at
    keras.applications' 0.999. Momenta above `USUAL_MOMENTUM` become at most 1 − 10/steps, and at least
    `MIN_MOMENTUM`, so that the averages are those of about the last tenth of the steps. Training normalises
    by the statistics of batches: no trained weight changes. Frozen layers stay as they are.

    Returns:
        (the highest momentum before, the momentum that replaced it); None if none was lowered.
    """
    fitting = max(MIN_MOMENTUM, 1 - UPDATES / max(steps, 1))
    high = [layer for layer in _with_momentum(network) if layer.momentum > max(fitting, USUAL_MOMENTUM)]
    before = max((layer.momentum for layer in high), default=0.0)
    for layer in high:
        layer.momentum = fitting
    return (before, fitting) if high else None


def unsettled(network: keras.layers.Layer, updates: int) -> tuple[float, float] | None:
    """(BN's highest momentum, the share of the initial values left in its moving averages after `updates`).

    None without trained BN, or where this share is at most `SETTLED`.
    """
    momentum = max((layer.momentum for layer in _with_momentum(network)), default=0.0)
    share = momentum**updates
    return (momentum, share) if momentum and share > SETTLED else None


def _with_momentum(network: keras.layers.Layer) -> list[Any]:
    """The layers with a moving mean and an attribute `momentum` that are not frozen."""
    return [
        layer
        for layer in _with_statistics(network)
        if isinstance(getattr(layer, "momentum", None), float)
        and (layer.trainable or getattr(layer, "batch_statistics", False))
    ]


def _with_statistics(network: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers of a network that keep a moving mean."""
    return [
        layer
        for layer in network._flatten_layers()
        if any(v.name == "moving_mean" for v in layer._non_trainable_variables)
    ]


def _moments(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Rows [V, n, C] → their mean and variance, float32 [V, C]."""
    rows = tf.cast(rows, tf.float32)
    mean = tf.reduce_mean(rows, 1, keepdims=True)
    return tf.squeeze(mean, 1), tf.reduce_mean(tf.square(rows - mean), 1)


def _normalise(rows: tf.Tensor, mean: tf.Tensor, scale: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
    """Rows [V, n, C], mean and scale [V, C], beta [C] → (rows − mean) · scale + beta, of the rows' dtype."""
    y = (tf.cast(rows, tf.float32) - mean[:, None]) * scale[:, None] + beta
    return tf.cast(y, rows.dtype)


_moments_by_xla = tf.function(_moments, jit_compile=True, autograph=False)
_normalise_by_xla = tf.function(_normalise, jit_compile=True, autograph=False)


def _fused(x, gamma, beta, mean, variance, epsilon: float, training: bool):  # noqa: ANN202
    # The raw op, since tf.nn's wrapper silently raises ε to 1.001e-5.
    return tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=epsilon, is_training=training
    )


# In bfloat16 on GPUs TensorFlow's op transposes every feature map to channels first and back. Compiled by
# XLA the op was measured to take a fifth of the time (docs/gpu.md).
_fused_by_xla = tf.function(_fused, jit_compile=True, autograph=False)
