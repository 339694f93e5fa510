"""The ways to a convolution are a convolution, and each shape goes the fastest."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf.nets import conv


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("pixels", [(2, 3), (7, 7), (8, 6)], ids=str)
@pytest.mark.parametrize(("size", "columns"), [(3, False), (3, True), (1, True)])
def test_the_direct_ways_and_their_gradients_are_the_convolutions(pixels, stride, size, columns):
    if size < stride:
        pytest.skip("left to the plain op")
    edge = [size // 2] * 2
    x = tf.random.stateless_normal([5, *pixels, 6], [0, 0])
    kernel = tf.random.stateless_normal([size, size, 6, 4], [0, 1])
    weight = tf.random.stateless_normal([5, *((n - 1) // stride + 1 for n in pixels), 4], [0, 2])
    found = []

    def plain(x, kernel):
        return tf.nn.conv2d(tf.pad(x, [[0, 0], edge, edge, [0, 0]]), kernel, stride, "VALID")

    for function in (functools.partial(conv.direct, stride=stride, by_columns=columns), plain):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = function(x, kernel)
            loss = tf.reduce_sum(weight * y)
        found.append((y, *tape.gradient(loss, [x, kernel])))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("pixels", "channels", "stride", "dtype", "way"),
    [
        (4, 64, 1, "bfloat16", "columns"),
        (4, 64, 1, "float32", "winograd"),
        (2, 64, 1, "bfloat16", "whole"),
        (1, 16, 1, "float32", "whole"),
        (2, 64, 2, "bfloat16", "columns"),
        (8, 128, 1, "bfloat16", "direct"),
        (7, 32, 1, "bfloat16", "direct"),
        (14, 64, 2, "bfloat16", "columns"),
        (28, 256, 2, "bfloat16", "columns"),
        (28, 256, 2, "float32", "direct"),
        (32, 64, 2, "bfloat16", "direct"),
        (7, 32, 2, "bfloat16", "columns"),
        (14, 16, 2, "bfloat16", "direct"),
        (4, 64, 2, "float32", "columns"),
        (14, 512, 2, "float32", "columns"),
        (7, 32, 2, "float32", "direct"),
    ],
)  # fmt: skip
def test_each_shape_goes_its_fastest_way(monkeypatch, pixels, channels, stride, dtype, way):
    calls = []

    def note(module, name, said):
        plain = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args: calls.append(said(args)) or plain(*args))

    note(conv.whole, "conv", lambda args: "whole")
    note(conv.winograd, "conv", lambda args: "winograd")
    note(conv, "direct", lambda args: "columns" if args[3] else "direct")
    layer = conv.Conv(64, 3, stride, dtype=dtype)
    x = tf.ones([2, pixels, pixels, channels], dtype)
    layer(x)
    assert not calls
    layer(x, training=True)
    assert calls == ([way] if conv._on_cpu() else [])
