"""Every algorithm for a convolution computes it, and each shape uses the fastest."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from helpers.reference_convolutions import results

from simsiam_tf.nets import Conv, fast_cpu_convolutions
from simsiam_tf.nets.cpu import dispatch, stride2


@pytest.mark.parametrize(("size", "conv"), [(1, stride2.conv1x1), (3, stride2.conv3x3)], ids=["1x1", "3x3"])
@pytest.mark.parametrize("pixels", [(2, 3), (7, 7), (8, 6), (30, 29)], ids=str)
@pytest.mark.parametrize("filters", [4, 60])
def test_stride_2_equals_the_convolution_and_its_gradients(pixels, size, conv, filters):
    edge = [size // 2] * 2
    x = tf.random.stateless_normal([5, *pixels, 6], [0, 0])
    kernel = tf.random.stateless_normal([size, size, 6, filters], [0, 1])
    upstream = tf.random.stateless_normal([5, *((n - 1) // 2 + 1 for n in pixels), filters], [0, 2])

    def plain(x, kernel):
        return tf.nn.conv2d(tf.pad(x, [[0, 0], edge, edge, [0, 0]]), kernel, 2, "VALID")

    found = results(tf.function(conv), x, kernel, upstream)
    for ours, theirs in zip(found, results(plain, x, kernel, upstream), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    ("pixels", "channels", "size", "stride", "dtype", "algorithm"),
    [
        (4, 64, 3, 1, "float32", dispatch.winograd.conv),
        (4, 63, 3, 1, "float32", None),
        (4, 64, 3, 1, "bfloat16", None),
        (2, 64, 3, 1, "bfloat16", dispatch.tiny_maps.conv),
        (1, 16, 3, 1, "float32", dispatch.tiny_maps.conv),
        (2, 64, 3, 2, "bfloat16", stride2.conv3x3),
        (32, 64, 3, 2, "float32", stride2.conv3x3),
        (8, 64, 1, 2, "float32", stride2.conv1x1),
        (8, 64, 1, 1, "float32", None),
        (8, 64, 7, 2, "float32", None),
    ],
)  # fmt: skip
def test_each_shape_uses_its_fastest_algorithm(pixels, channels, size, stride, dtype, algorithm):
    x = tf.ones([2, pixels, pixels, channels], dtype)
    assert dispatch.fastest(x, 64, size, stride) is (algorithm if dispatch.on_cpu() else None)
    layer = Conv(64, size, stride, dtype=dtype)
    trained, plain = layer(x, training=True), layer(x)
    assert trained.shape == plain.shape == layer.compute_output_shape(x.shape)
    np.testing.assert_allclose(
        tf.cast(trained, tf.float32),
        tf.cast(plain, tf.float32),
        rtol=1e-2,
        atol=1e-2 if channels < 64 else 0.1,
    )


@pytest.mark.parametrize(
    "options", [{"use_bias": True}, {"activation": "relu"}, {"groups": 2}, {"dilation_rate": 2}], ids=str
)
def test_what_the_fast_algorithms_would_leave_out_is_refused(options):
    with pytest.raises(ValueError, match="neither bias, activation, groups nor dilation"):
        Conv(64, 3, **options)
    with pytest.raises(ValueError, match="odd square kernel"):
        Conv(64, 2)


def test_a_switch_leaves_every_convolution_to_tensorflow(monkeypatch):
    layer = Conv(64, 3, 2)
    x = tf.random.stateless_normal([2, 8, 8, 64], [0, 0])
    fast = layer(x, training=True)
    monkeypatch.setattr(stride2, "conv3x3", lambda *args: pytest.fail("used"))
    monkeypatch.setattr(dispatch, "DISPATCH_BY_SHAPE", True)  # restored after the test
    fast_cpu_convolutions(False)
    np.testing.assert_allclose(layer(x, training=True), fast, rtol=1e-5, atol=1e-5)


def test_the_switch_is_in_the_environment_too(monkeypatch):
    code = "from simsiam_tf.nets.cpu import dispatch; print(dispatch.DISPATCH_BY_SHAPE)"
    for value, expected in (("0", "False"), ("1", "True")):
        monkeypatch.setenv("SIMSIAM_TF_FAST_CPU_CONVOLUTIONS", value)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.split() == [expected], done.stderr
