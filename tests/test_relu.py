"""ReLU's gradient is ReLU's, however it is computed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf.nets import relu

SPECIAL = [-np.inf, -1.0, -0.0, 0.0, 1e-38, 2.5, np.inf, np.nan]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("shape", [(8,), (2, 2, 2, 1)], ids=str)
def test_values_and_gradient_are_those_of_the_plain_layer(monkeypatch, dtype, shape):
    calls, ours = [], relu._where_positive
    monkeypatch.setattr(relu, "_where_positive", lambda *args: calls.append(args) or ours(*args))
    x = tf.cast(tf.reshape(tf.constant(SPECIAL), shape), dtype)
    upstream = tf.cast(tf.reshape(tf.constant([1.0, -2, 3, -4, 5, -6, 7, -8]), shape), dtype)
    found = []
    for layer in (relu.ReLU(dtype=dtype), keras.layers.ReLU(dtype=dtype)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True) if isinstance(layer, relu.ReLU) else layer(x)
        found.append([tf.cast(v, tf.float32).numpy() for v in (y, tape.gradient(y, x, upstream))])
    for mine, plain in zip(*found, strict=True):
        np.testing.assert_array_equal(mine, plain)
    assert len(calls) == (dtype == "bfloat16" and relu.on_cpu())
