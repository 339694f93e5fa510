"""The matrix product for tiny maps is a convolution: values and gradients."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.reference_convolutions import plain, results

from simsiam_tf.nets.cpu import tiny_maps


def drawn(size, dtype):
    shapes = ([3, *size, 5], [3, 3, 5, 6], [3, *size, 6])
    return [tf.cast(tf.random.stateless_normal(s, [1, i]), dtype) for i, s in enumerate(shapes)]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-14), ("float32", 3e-6), ("bfloat16", 2e-2)], ids=str
)
@pytest.mark.parametrize("size", [(2, 2), (1, 1), (1, 2), (2, 1)], ids=str)
def test_values_and_gradients_equal_the_convolutions(size, dtype, tolerance):
    drawn_ones = drawn(size, dtype)
    reference = results(plain, *(tf.cast(a, "float64") for a in drawn_ones))
    for ours, theirs in zip(tf.function(results)(tiny_maps.conv, *drawn_ones), reference, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == dtype
        np.testing.assert_allclose(tf.cast(ours, "float64"), theirs, atol=tolerance * np.abs(theirs).max())


def test_a_larger_map_is_refused():
    x, kernel, _ = drawn((3, 2), "float32")
    with pytest.raises(ValueError, match="3×2 pixels is too large"):
        tiny_maps.conv(x, kernel)
