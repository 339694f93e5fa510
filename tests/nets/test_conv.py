"""Every algorithm for a convolution computes it, and each shape uses the fastest."""

import functools
import itertools
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf.nets import Conv, fast_cpu_convolutions
from simsiam_tf.nets.cpu import dispatch

ALGORITHMS = [  # side of the kernel, stride, options; None: chosen by shape
    (3, 1, {}), (3, 2, {}), (1, 1, {}), (1, 2, {}),
    (3, 1, {"by_patches": True}), (3, 2, {"by_patches": True}), (3, 2, {"by_rows": True}),
    (1, 1, {"by_patches": True}), (1, 1, None), (1, 2, None),
]  # fmt: skip


@pytest.mark.parametrize(("size", "stride", "way"), ALGORITHMS, ids=str)
@pytest.mark.parametrize("pixels", [(2, 3), (7, 7), (8, 6)], ids=str)
@pytest.mark.parametrize("filters", [4, 60])
def test_each_algorithm_equals_the_convolution_and_its_gradients(pixels, stride, size, way, filters):
    ours = dispatch.conv_training if way is None else functools.partial(dispatch.conv_onednn, **way)
    edge = [size // 2] * 2
    x = tf.random.stateless_normal([5, *pixels, 6], [0, 0])
    kernel = tf.random.stateless_normal([size, size, 6, filters], [0, 1])
    weight = tf.random.stateless_normal([5, *((n - 1) // stride + 1 for n in pixels), filters], [0, 2])
    found = []

    def plain(x, kernel):
        return tf.nn.conv2d(tf.pad(x, [[0, 0], edge, edge, [0, 0]]), kernel, stride, "VALID")

    for function in (functools.partial(ours, stride=stride), plain):
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
        (4, 64, 1, "bfloat16", "patches"),
        (4, 64, 1, "float32", "winograd"),
        (2, 64, 1, "bfloat16", "tiny maps"),
        (1, 16, 1, "float32", "tiny maps"),
        (2, 64, 2, "bfloat16", "patches"),
        (8, 128, 1, "bfloat16", "direct"),
        (7, 32, 1, "bfloat16", "direct"),
        (14, 64, 2, "bfloat16", "patches"),
        (28, 256, 2, "bfloat16", "patches"),
        (28, 256, 2, "float32", "direct"),
        (32, 64, 2, "bfloat16", "direct"),
        (7, 32, 2, "bfloat16", "patches rows"),
        (14, 16, 2, "bfloat16", "rows"),
        (4, 64, 2, "float32", "patches"),
        (14, 512, 2, "float32", "patches"),
        (7, 32, 2, "float32", "rows"),
    ],
)  # fmt: skip
def test_each_shape_uses_its_fastest_algorithm(monkeypatch, pixels, channels, stride, dtype, way):
    calls, names = [], ("patches", "rows")

    def note(module, name, said):
        plain = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args: calls.append(said(*args)) or plain(*args))

    note(dispatch.tiny_maps, "conv", lambda *args: "tiny maps")
    note(dispatch.winograd, "conv", lambda *args: "winograd")
    note(
        dispatch,
        "conv_onednn",
        lambda x, kernel, stride, *ways: " ".join(itertools.compress(names, ways)) or "direct",
    )
    layer = Conv(64, 3, stride, dtype=dtype)
    x = tf.ones([2, pixels, pixels, channels], dtype)
    layer(x)
    assert not calls
    layer(x, training=True)
    assert calls == ([way] if dispatch.on_cpu() else [])


@pytest.mark.parametrize(
    "options", [{"use_bias": True}, {"activation": "relu"}, {"groups": 2}, {"dilation_rate": 2}], ids=str
)
def test_what_the_fast_algorithms_would_leave_out_is_refused(options):
    with pytest.raises(ValueError, match="neither bias, activation, groups nor dilation"):
        Conv(64, 3, **options)
    with pytest.raises(ValueError, match="odd square kernel"):
        Conv(64, 2)
    with pytest.raises(ValueError, match="channels_last"):
        Conv(64, 3, data_format="channels_first")


def test_a_switch_leaves_every_convolution_to_tensorflow(monkeypatch):
    layer = Conv(64, 3, 2)
    x = tf.random.stateless_normal([2, 8, 8, 64], [0, 0])
    fast = layer(x, training=True)
    monkeypatch.setattr(dispatch, "conv_training", lambda *args: pytest.fail("used"))
    monkeypatch.setattr(dispatch, "DISPATCH_BY_SHAPE", True)  # restored after the test
    fast_cpu_convolutions(False)
    np.testing.assert_allclose(layer(x, training=True), fast, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_switch_is_in_the_environment_too(monkeypatch):
    code = "from simsiam_tf.nets.cpu import dispatch; print(dispatch.DISPATCH_BY_SHAPE)"
    for value, expected in (("0", "False"), ("1", "True")):
        monkeypatch.setenv("SIMSIAM_TF_FAST_CPU_CONVOLUTIONS", value)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.split() == [expected], done.stderr
