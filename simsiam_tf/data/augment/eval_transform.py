"""The view of an image for evaluation (Sec. 3), to the bit torchvision's Resize and CenterCrop of PIL images.

The filter of the resize is a triangle whose half width is a pixel before or after the resize, whichever is
larger. As in Pillow, its weights are whole multiples of 2⁻²², and values are rounded once after the width and
once after the height. All arithmetic is of whole numbers, so that every program that computes it agrees.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf.data.augment.augmentations import Augmentation

ops: Any = keras.ops  # pyright infers None from its functions
SMALL = 64  # pixels; views of at most this side are resized without a crop
BITS = 22  # of a weight of the resize, in units of 2⁻²²
_DIGITS = (6, 5, 6, 5)  # bits of a weight that are divided at a time, so that int32 suffices
_LOW = 11  # bits of a weight's lower part; a float32 product sums either part without rounding


def shorter_side(size: int) -> int:
    """Pixels that the shorter side of an image is resized to: 256/224 · size, or up to `SMALL` the size."""
    return size if size <= SMALL else round(size * 256 / 224)


def _resized_sides(height: Any, width: Any, size: int) -> tuple[Any, Any]:
    """Sides, int32 scalars, that an image is resized to before its middle size × size pixels are taken.

    The shorter one becomes short = `shorter_side`, the other int(short · longer / shorter), as in Resize. Up
    to `SMALL`, both become the size.
    """
    short = shorter_side(size)
    if size <= SMALL:
        return size, size  # no tensors, which an exported graph would take for inputs
    shorter = ops.minimum(height, width)
    most = 2**24 // short  # largest ratio of the sides for which `_weights` fit into int32

    def resized(side: Any) -> Any:
        return short * ops.minimum(side // shorter, most) + short * (side % shorter) // shorter

    return resized(height), resized(width)


def _middle_start(side: Any, size: int) -> Any:
    """The first of the middle `size` of `side` pixels; halves are rounded to even, as in CenterCrop."""
    gap = side - size
    return gap // 2 + (gap % 2) * (gap // 2 % 2)


def _weights(offset: Any, centre: Any, side: Any, resized: Any) -> tuple[Any, Any]:
    """Weights of a resized axis in units of 2⁻²², as upper and lower parts: upper · 2¹¹ + lower.

    offset: 2x + 1 − side of pixels x, whole numbers [1 or size, n]. centre: [size, 1], as by `_centres`.
    side, resized: lengths of the axis before and after, scalars. All of one integer type. A weight is the
    triangle's height above the pixel, as a share of the sum over the pixels given. With int32, sides may be
    up to 4096 · √resized.
    """
    half_base = 2 * ops.maximum(side, resized)
    most = 2**30 // resized  # a pixel farther away has no weight
    offset = ops.maximum(ops.minimum(offset, most), -most)
    rest = ops.maximum(half_base - ops.absolute(offset * resized - side * centre), 0)
    total = ops.sum(rest, axis=1, keepdims=True)
    digits = []
    for bits in _DIGITS:  # long division
        digits.append(rest * 2**bits // total)
        rest = rest * 2**bits - digits[-1] * total
    round_up = ops.cast(2 * rest >= total, rest.dtype)
    return digits[0] * 2 ** _DIGITS[1] + digits[1], digits[2] * 2 ** _DIGITS[3] + digits[3] + round_up


def _centres(resized: Any, size: int) -> Any:
    """2j + 1 − resized of the middle `size` pixels j of an axis: [size, 1]."""
    return 2 * (_middle_start(resized, size) + np.arange(size, dtype=np.int32)[:, None]) + 1 - resized


def resize_and_crop(images: tf.Tensor, size: int) -> tf.Tensor:
    """The middle of resized images: uint8 [B, H, W, C] → uint8 [B, size, size, C].

    Only the pixels that the middle is made of are touched, so that memory does not depend on how long the
    longer side is.
    """
    height, width = tf.unstack(tf.shape(images)[1:3])
    new_height, new_width = _resized_sides(height, width, size)
    left, columns, by_column = _sparse_weights(width, new_width, size)
    top, rows, by_row = _sparse_weights(height, new_height, size)
    x = images[:, top : top + rows, left : left + columns]
    x = _product(by_column, _transposed(x, [2, 1, 0, 3]), size)
    x = _product(by_row, _transposed(x, [1, 0, 2, 3]), size)
    x = tf.nn.relu(_transposed(x, [2, 0, 1, 3]))
    return tf.ensure_shape(tf.cast(x, tf.uint8), [None, size, size, images.shape[-1]])


def _transposed(x: tf.Tensor, order: list[int]) -> tf.Tensor:
    """Whole numbers in [0, 255], of any type, transposed as float32."""
    # NOTE: oneDNN complains on stderr where TensorFlow transposes bytes or, without AVX-512, int32. A ReLU
    # changes no value; without it TensorFlow would transpose bytes before they are cast, or after.
    return tf.transpose(tf.nn.relu(tf.cast(x, tf.float32)), order)


def _sparse_weights(side: tf.Tensor, resized: Any, size: int) -> tuple[tf.Tensor, tf.Tensor, tf.SparseTensor]:
    """(first pixel, number of pixels n, weights int32 [size, n]) of what the middle of an axis is made of."""
    side, resized = tf.cast(side, tf.int64), tf.cast(resized, tf.int64)
    centre = tf.cast(_centres(resized, size), tf.int64)
    base = 2 * tf.maximum(side, resized)
    first = (side * (resized + centre) - base + resized) // (2 * resized)  # of the pixels with a weight
    count = -(-base // resized)
    pixels = first + tf.range(count)  # [size, count]
    outside = (pixels < 0) | (pixels >= side)
    offset = tf.where(outside, tf.constant(2**30, tf.int64), 2 * pixels + 1 - side)
    high, low = _weights(offset, centre, side, resized)
    start = tf.maximum(first[0, 0], 0)
    n = tf.minimum(first[-1, 0] + count, side) - start
    columns = tf.clip_by_value(pixels - start, 0, n - 1)
    rows = tf.repeat(tf.range(size, dtype=tf.int64), tf.repeat(count, size))
    weights = tf.SparseTensor(
        tf.stack([rows, tf.reshape(columns, [-1])], axis=1),
        tf.reshape(tf.cast(high * 2**_LOW + low, tf.int32), [-1]),
        tf.stack([size, n]),
    )
    return tf.cast(start, tf.int32), tf.cast(n, tf.int32), weights


def _product(weights: tf.SparseTensor, x: tf.Tensor, size: int) -> tf.Tensor:
    """A resized axis: [n, …] of pixels → int32 [size, …]."""
    shape = tf.shape(x)
    # NOTE: the products are of whole numbers, and sums stay below 2³¹.
    y = tf.raw_ops.SparseTensorDenseMatMul(
        a_indices=weights.indices, a_values=weights.values, a_shape=weights.dense_shape,
        b=tf.reshape(tf.cast(x, tf.int32), [shape[0], -1]),
    )  # fmt: skip
    y = tf.bitwise.right_shift(y + 2 ** (BITS - 1), BITS)
    return tf.reshape(y, tf.concat([[size], shape[1:]], axis=0))


def preprocess(images: Any, augmentation: Augmentation) -> Any:
    """`Views.evaluation_view` and `normalise` in keras.ops, so that an exported file needs only stock Keras.

    Works on tensors and, while a functional model is built, on symbolic ones. The antialiased resize of an
    axis is two matrix products, which every format that a network is exported to can hold.

    images: [B, H, W, C] in [0, 255], integer or float. Returns float32 [B, size, size, C].
    """
    size = augmentation.size
    mean, std = map(np.array, augmentation.statistics(images.shape[-1]))
    x = ops.transpose(ops.relu(ops.cast(images, "float32")), [0, 3, 1, 2])  # ReLU: see `_transposed`
    # A symbolic image has no known size; counting its pixels gives it.
    rows, columns = ops.ones_like(x[0, 0, :, 0]), ops.ones_like(x[0, 0, 0, :])
    height, width = (ops.cast(ops.sum(pixels), "int32") for pixels in (rows, columns))
    new_height, new_width = _resized_sides(height, width, size)
    x = _rounded(*(ops.matmul(x, ops.transpose(m)) for m in _matrices(columns, width, new_width, size)))
    x = _rounded(*(ops.matmul(m, x) for m in _matrices(rows, height, new_height, size)))
    normalise = keras.layers.Rescaling(
        (1 / (255 * std)).tolist(), (-mean / std).tolist(), dtype="float32", name="normalise"
    )
    return normalise(ops.transpose(x, [0, 2, 3, 1]))


def _matrices(pixels: Any, side: Any, resized: Any, size: int) -> tuple[Any, Any]:
    """Upper and lower parts of the weights of an axis' middle, float32 [size, side].

    pixels: float32 ones [side]. side, resized: lengths of the axis before and after, int32 scalars.
    """
    offset = 2 * ops.expand_dims(ops.cast(ops.cumsum(pixels), "int32"), 0) - 1 - side
    high, low = _weights(offset, _centres(resized, size), side, resized)
    return ops.cast(high, "float32"), ops.cast(low, "float32")


def _rounded(high: Any, low: Any) -> Any:
    """Sums of pixels by the upper and lower parts of weights → whole levels, halves up."""
    return ops.floor((high + ops.floor((low + 2 ** (BITS - 1)) / 2**_LOW)) / 2 ** (BITS - _LOW))
