"""Batch normalisation by the formulas of PyTorch's (Sync)BatchNorm."""

from __future__ import annotations

import sys

import keras
import tensorflow as tf

from simsiam_tf.runtime.devices import on_gpu


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
        """Normalises by the moments of all replicas: the mean first, then the variance around it."""
        n = context.num_replicas_in_sync
        axes = list(range(len(x.shape) - 1))
        dtype, x = x.dtype, tf.cast(x, tf.float32)
        count = tf.cast(tf.size(x) // x.shape[-1] * n, tf.float32)
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_mean(x, axes))
        mean = total / n
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_mean(tf.square(x - mean), axes))
        variance = total / n
        self._update_moving(mean, variance * count / tf.maximum(count - 1.0, 1.0))
        y = (x - mean) * (tf.math.rsqrt(variance + self.epsilon) * gamma) + beta
        return tf.cast(y, dtype)

    def _update_moving(self, mean, variance) -> None:
        keep = self.momentum
        self.moving_mean.assign(keep * self.moving_mean + (1.0 - keep) * mean)
        self.moving_variance.assign(keep * self.moving_variance + (1.0 - keep) * variance)

    def get_config(self) -> dict:
        names = ("momentum", "epsilon", "affine", "zero_gamma", "batch_statistics", "center")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def synchronise(network: keras.Model) -> None:
    """Lets `keras.layers.BatchNormalization` take the statistics of all replicas, if there are several.

    Such layers keep Keras' formula: their moving variance follows the variance of the batch, not the unbiased
    one. A line on stderr names normalising layers of other classes, which keep statistics of one replica.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return
    others = []
    for layer in network._flatten_layers():
        if type(layer) is keras.layers.BatchNormalization:
            layer.synchronized = True
        elif not isinstance(layer, BatchNorm) and any(
            v.name == "moving_mean" for v in layer._non_trainable_variables
        ):
            others.append(layer.name)
    if others:
        print(
            f"{network.name}: its layers {', '.join(others[:5])}{', …' * (len(others) > 5)} take statistics "
            "of one replica's images alone; other replicas may keep others. One device avoids it.",
            file=sys.stderr,
        )


def _fused(x, gamma, beta, mean, variance, epsilon: float, training: bool):  # noqa: ANN202
    # The raw op, since tf.nn's wrapper silently raises ε to 1.001e-5.
    return tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=epsilon, is_training=training
    )


# In bfloat16 on GPUs TensorFlow's op transposes every feature map to channels first and back. Compiled by
# XLA the op was measured to take a fifth of the time (docs/gpu.md).
_fused_by_xla = tf.function(_fused, jit_compile=True, autograph=False)
