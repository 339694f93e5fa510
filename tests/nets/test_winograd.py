"""Winograd's convolution is a convolution: values, gradients, rounding, and where it is used."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.reference_convolutions import plain, results

from simsiam_tf import nets
from simsiam_tf.nets.cpu import dispatch, winograd


@pytest.mark.parametrize("points", [winograd.POINTS, (0.0, 1.0, -1.0)], ids=["4", "2"])
def test_the_matrices_filter_one_line(points):
    rng = np.random.default_rng(0)
    line, kernel = rng.normal(size=len(points) + 1), rng.normal(size=3)
    at, g, bt = winograd.matrices(points)
    y = at @ ((g @ kernel) * (bt @ line))
    np.testing.assert_allclose(y, np.correlate(line, kernel, "valid"), rtol=1e-12, atol=1e-12)


def rounding(function, batch, size, channels, filters):
    """Relative errors of the output and both gradients against float64."""
    shapes = ([batch, *size, channels], [3, 3, channels, filters], [batch, *size, filters])
    exact = [tf.random.stateless_normal(s, [1, i], dtype=tf.float64) for i, s in enumerate(shapes)]
    single = [tf.cast(a, tf.float32) for a in exact]
    reference = results(plain, *(tf.cast(a, tf.float64) for a in single))
    found = tf.function(results)(function, *single)
    return [
        float(tf.norm(tf.cast(a, tf.float64) - b) / tf.norm(b)) for a, b in zip(found, reference, strict=True)
    ]


@pytest.mark.parametrize("size", [(4, 4), (8, 12), (7, 7), (3, 5), (1, 1), (2, 2), (9, 2)], ids=str)
def test_values_and_gradients_equal_the_convolutions(size):
    assert max(rounding(winograd.conv, 3, size, 5, 6)) < 3e-6


def test_rounding_errors_are_near_a_direct_convolutions():
    shapes = (4, (8, 8), 256, 128)
    direct = np.array(rounding(plain, *shapes))
    ours = np.array(rounding(winograd.conv, *shapes))
    customary = np.array(rounding(winograd.Winograd((0.0, 1.0, -1.0, 2.0, -2.0)).conv, *shapes))
    assert max(ours) < 2e-6
    assert (
        ours[:2] < 2.5 * direct[:2]
    ).all()  # how finely oneDNN sums the kernel's gradient depends on the CPU
    assert (customary > 2 * ours).all()


def test_the_batch_may_be_unknown():
    signature = [tf.TensorSpec([None, 8, 8, 3]), tf.TensorSpec([3, 3, 3, 2])]
    traced = tf.function(winograd.conv, input_signature=signature)
    x, kernel = (tf.random.stateless_normal(s, [0, i]) for i, s in enumerate(([5, 8, 8, 3], [3, 3, 3, 2])))
    np.testing.assert_allclose(traced(x, kernel), plain(x, kernel), rtol=1e-4, atol=1e-4)


def test_two_replicas_may_use_winograd(two_replicas):
    shapes = ([2, 8, 8, 3], [3, 3, 3, 2], [2, 8, 8, 2])
    values = [tf.random.stateless_normal(s, [0, i]) for i, s in enumerate(shapes)]
    run = tf.function(lambda: two_replicas.run(results, args=(winograd.conv, *values)))
    for found, expected in zip(run(), results(plain, *values), strict=True):
        for replica in two_replicas.experimental_local_results(found):
            np.testing.assert_allclose(replica, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_backbone_passes_training_to_its_convolutions(monkeypatch):
    calls, ours = [], winograd.conv
    monkeypatch.setattr(winograd, "conv", lambda x, kernel: calls.append(1) or ours(x, kernel))
    backbone = nets.resnet10(stem="cifar", width=1.0, channels=1)
    x = tf.random.stateless_normal([2, 24, 24, 1], [0, 0])
    backbone(x, training=False)
    assert not calls
    backbone(x, training=True)
    assert len(calls) == (5 if dispatch.on_cpu() else 0)  # two in stage 1, conv2 in stages 2 to 4
