"""ReLU, whose gradient is computed on CPUs as is fastest for its precision."""

from __future__ import annotations

import keras
import tensorflow as tf

from simsiam_tf.devices import on_cpu


@keras.saving.register_keras_serializable("simsiam_tf")
class ReLU(keras.layers.ReLU):
    """max(x, 0). On a CPU in bfloat16 the gradient is one function of XLA's: see docs/performance.md."""

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        if training and x.dtype == tf.bfloat16 and on_cpu():
            return _trained(x)
        return super().call(x)


@tf.custom_gradient
def _trained(x: tf.Tensor):  # noqa: ANN202
    y = tf.nn.relu(x)

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        # As vectors: XLA makes slow loops of maps that are a few channels deep.
        kept = _where_positive(tf.reshape(y, [-1]), tf.reshape(upstream, [-1]))
        return tf.reshape(kept, tf.shape(upstream))

    return y, gradient


@tf.function(jit_compile=True, autograph=False)
def _where_positive(y: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    return tf.where(y > 0, upstream, tf.zeros_like(upstream))
