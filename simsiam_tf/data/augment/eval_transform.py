"""The view of an image for evaluation (Sec. 3), equal to torchvision's Resize and CenterCrop on PIL images.

The filter of the resize is a triangle whose half width is a pixel before or after the resize, whichever is
larger. Values are rounded once after the width and once after the height.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf.data.augment.augmentations import Augmentation
from simsiam_tf.data.augment.crops import resize_rows

ops: Any = keras.ops  # pyright infers None from its functions
SMALL = 64  # pixels; views of at most this side are resized without a crop


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
    most = 2**30 // short  # largest ratio of the sides that int32 can hold

    def resized(side: Any) -> Any:
        return short * ops.minimum(side // shorter, most) + short * (side % shorter) // shorter

    return resized(height), resized(width)


def _middle_start(side: Any, size: int) -> Any:
    """The first of the middle `size` of `side` pixels; halves are rounded to even, as in CenterCrop."""
    gap = side - size
    return gap // 2 + (gap % 2) * (gap // 2 % 2)


def _rounded(x: Any) -> Any:
    """Rounds to whole levels in [0, 255], halves up, also halves that float32 represents slightly too low."""
    return ops.clip(ops.floor(x + 0.5002), 0.0, 255.0)


def resize_and_crop(images: tf.Tensor, size: int) -> tf.Tensor:
    """The middle of resized images: [B, H, W, C] in [0, 255] → uint8 [B, size, size, C].

    Only the pixels that the middle is made of are touched, so that memory does not depend on how long the
    longer side is.
    """
    sides = tf.unstack(tf.shape(images)[1:3])
    resized = _resized_sides(*sides, size=size)
    # The rows and columns that the middle needs; no others are resized.
    (top, rows), (left, columns) = (_needed(n, m, size) for n, m in zip(sides, resized, strict=True))
    # NOTE: the ReLU changes no value. Without it TensorFlow transposes the bytes before it casts them, of
    # which oneDNN complains.
    x = tf.nn.relu(tf.cast(images[:, top : top + rows, left : left + columns], tf.float32))
    x = _middle_rows(tf.transpose(x, [0, 2, 1, 3]), sides[1], resized[1], left, size)
    x = _middle_rows(tf.transpose(x, [0, 2, 1, 3]), sides[0], resized[0], top, size)
    return tf.ensure_shape(tf.cast(x, tf.uint8), [None, size, size, images.shape[-1]])


def _needed(side: tf.Tensor, resized: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """First pixel and number of the pixels that the middle `size` of `resized` pixels are made of."""
    scale = tf.cast(side, tf.float64) / tf.cast(resized, tf.float64)
    start = tf.cast(_middle_start(resized, size), tf.float64)
    reach = tf.maximum(scale, 1.0) + 1.0
    first = tf.cast(tf.maximum(tf.floor(start * scale - reach), 0.0), tf.int32)
    last = tf.cast(tf.math.ceil((start + size) * scale + reach), tf.int32)
    return first, tf.minimum(last, side) - first


def _middle_rows(x: tf.Tensor, side: tf.Tensor, resized: tf.Tensor, first: tf.Tensor, size: int) -> tf.Tensor:
    """[B, n, R, C], pixels of an axis of `side` from `first` on → its resized middle [B, size, R, C]."""
    scale = tf.cast(resized, tf.float64) / tf.cast(side, tf.float64)
    shift = tf.cast(first, tf.float64) * scale - tf.cast(_middle_start(resized, size), tf.float64)
    return _rounded(resize_rows(x, size, tf.cast(scale, tf.float32), tf.cast(shift, tf.float32)))


def preprocess(images: Any, augmentation: Augmentation) -> Any:
    """`Views.evaluation_view` and `normalise` in keras.ops, so that an exported file needs only stock Keras.

    Works on tensors and, while a functional model is built, on symbolic ones. The antialiased resize is
    two matrix products, which every format that a network is exported to can hold.

    images: [B, H, W, C] in [0, 255], integer or float. Returns float32 [B, size, size, C].
    """
    size = augmentation.size
    mean, std = map(np.array, augmentation.statistics(images.shape[-1]))
    x = ops.transpose(ops.relu(ops.cast(images, "float32")), [0, 3, 1, 2])  # ReLU: see `resize_and_crop`
    # A symbolic image has no known size; counting its pixels gives it.
    rows, columns = ops.ones_like(x[0, 0, :, 0]), ops.ones_like(x[0, 0, 0, :])
    height, width = (ops.cast(ops.sum(pixels), "int32") for pixels in (rows, columns))
    new_height, new_width = _resized_sides(height, width, size)
    x = _rounded(ops.matmul(x, ops.transpose(_resize_matrix(columns, width, new_width, size))))
    x = _rounded(ops.matmul(_resize_matrix(rows, height, new_height, size), x))
    normalise = keras.layers.Rescaling(
        (1 / (255 * std)).tolist(), (-mean / std).tolist(), dtype="float32", name="normalise"
    )
    return normalise(ops.transpose(x, [0, 2, 3, 1]))


def _as_float(x: Any) -> Any:
    return float(x) if isinstance(x, int) else ops.cast(x, "float32")


def _resize_matrix(pixels: Any, side: Any, resized: Any, size: int) -> Any:
    """The middle `size` rows of an antialiased bilinear resize of an axis, [size, side]; rows sum to 1.

    pixels: float32 ones [side]. side, resized: lengths of the axis before and after, int32 scalars.
    """
    scale = ops.cast(side, "float32") / _as_float(resized)
    first = _as_float(_middle_start(resized, size))
    centre = scale * (first + np.arange(size, dtype=np.float32)[:, None] + 0.5)
    distance = ops.absolute(ops.cumsum(pixels) - 0.5 - centre)
    weight = ops.relu(1.0 - distance / ops.maximum(scale, 1.0))
    return weight / ops.sum(weight, axis=1, keepdims=True)
