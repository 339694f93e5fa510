"""Boxes of random area and aspect, and antialiased resizing of batches."""

from __future__ import annotations

import math

import tensorflow as tf
from keras import ops

TRIES = 10
DRAWS = 2 * TRIES + 2  # uniforms per box


def between(u: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """u in [0, 1) → [low, high)."""
    return low + (high - low) * u


def candidates(u: tf.Tensor, area: tuple, aspect: tuple) -> tf.Tensor:
    """u [..., 22] → [..., 10, 2]: tried heights and widths over √(image height · image width)."""
    share = between(u[..., :TRIES], *area)
    ratio = tf.exp(between(u[..., TRIES:-2], *(math.log(a) for a in aspect)))
    return tf.sqrt(tf.stack([share / ratio, share * ratio], axis=-1))


def boxes(tried: tf.Tensor, u: tf.Tensor, image: tf.Tensor, aspect: tuple) -> tf.Tensor:
    """The first candidate that fits, at a uniform place, as torchvision's get_params.

    Args:
        tried: [B, 10, 2] from `candidates`.
        u: [B, 2] uniforms of top and left.
        image: float [2] or [B, 2], heights and widths in pixels.
        aspect: smallest and largest width / height of a box.

    Returns:
        float [B, 4]: top, left, height, width. Where nothing fits, the largest centred box
        whose aspect is allowed.
    """
    sides = tf.round(tried * tf.sqrt(tf.reduce_prod(image, axis=-1))[..., None, None])
    fits = tf.reduce_all((sides > 0) & (sides <= image[..., None, :]), axis=-1)
    first = tf.argmax(tf.cast(fits, tf.int32), axis=1)
    size = tf.gather(sides, first, batch_dims=1)
    corner = tf.floor(u * (image - size + 1))
    low, high = aspect
    largest = tf.minimum(image, tf.round(tf.reverse(image, [-1]) * tf.constant([1 / low, high])))
    centred = tf.concat([(image - largest) // 2, largest], axis=-1)
    found = tf.concat([corner, size], axis=1)
    return tf.where(tf.reduce_any(fits, axis=1)[:, None], found, centred)


def resize(image: tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    """Antialiased bilinear resize of one image [H, W, C] → float32 [height, width, C].

    Equal to `tf.image.resize(…, antialias=True)` and twice as fast: whole rows of pixels are
    summed at a time, once along the height and, transposed, once along the width.
    """
    x = _resize_rows(image, height)
    x = _resize_rows(tf.transpose(x, [1, 0, 2]), width)
    return tf.ensure_shape(tf.transpose(x, [1, 0, 2]), [None, None, image.shape[-1]])


def _resize_rows(x: tf.Tensor, size: int | tf.Tensor) -> tf.Tensor:
    """[H, W, C] → [size, W, C]. The op sees one column whose pixels have W · C channels."""
    height, width, channels = tf.unstack(tf.shape(x))
    scale = tf.cast(size, tf.float32) / tf.cast(height, tf.float32)
    y = tf.raw_ops.ScaleAndTranslate(
        images=tf.reshape(x, [1, height, 1, width * channels]), size=[size, 1],
        scale=tf.stack([scale, 1.0]), translation=[0.0, 0.0], kernel_type="triangle", antialias=True,
    )  # fmt: skip
    return tf.reshape(y, [size, width, channels])


def floats(images: tf.Tensor) -> tf.Tensor:
    """Values from 0 on of any dtype as float32, to be transposed."""
    # NOTE: TensorFlow would move a transpose before a bare cast, where oneDNN complains of uint8.
    return tf.nn.relu(tf.cast(images, tf.float32))


def resized_sides(height: tf.Tensor, width: tf.Tensor, short: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Sides of an image whose shorter one becomes `short`; the other is cut to an integer.

    As torchvision's Resize: int(short · longer / shorter). height, width: int32 scalars.
    """
    least = ops.minimum(height, width)
    most = 2**30 // short  # times as long as wide: what int32 holds

    def resized(side: tf.Tensor) -> tf.Tensor:
        return short * ops.minimum(side // least, most) + short * (side % least) // least

    return resized(height), resized(width)


def centre_start(side: tf.Tensor, size: int) -> tf.Tensor:
    """Where the middle `size` of `side` pixels begin: halves go to even numbers, as in CenterCrop."""
    gap = side - size
    return gap // 2 + (gap % 2) * (gap // 2 % 2)


def centre(images: tf.Tensor, new: tuple[tf.Tensor, tf.Tensor], size: int) -> tf.Tensor:
    """Antialiased resize to new[0] × new[1], then the middle size × size: uint8 [B, size, size, C].

    Computes what torchvision's Resize and CenterCrop compute of PIL images: the filter is a triangle as
    wide as the larger of the two pixel sizes, and values are rounded once after the width and once after
    the height. Only what the middle is made of is touched, so that memory does not depend on how long
    the other side is.

    images: [B, H, W, C] in [0, 255]. new: height and width, int32, at least `size`.
    """
    sides = tf.unstack(tf.shape(images)[1:3])
    # First the rows that the middle needs, so that no others are resized along the width.
    (top, rows), (left, columns) = (_needed(n, m, size) for n, m in zip(sides, new, strict=True))
    x = floats(images[:, top : top + rows, left : left + columns])
    x = tf.transpose(x, [0, 2, 1, 3])
    x = _middle(x, sides[1], new[1], left, size)
    x = _middle(tf.transpose(x, [0, 2, 1, 3]), sides[0], new[0], top, size)
    return tf.ensure_shape(tf.cast(x, tf.uint8), [None, size, size, images.shape[-1]])


def _needed(side: tf.Tensor, new: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """First pixel and number of those that the middle `size` of `new` pixels are made of."""
    scale = tf.cast(side, tf.float64) / tf.cast(new, tf.float64)
    start = tf.cast(centre_start(new, size), tf.float64)
    reach = tf.maximum(scale, 1.0) + 1.0
    first = tf.cast(tf.maximum(tf.floor(start * scale - reach), 0.0), tf.int32)
    last = tf.cast(tf.math.ceil((start + size) * scale + reach), tf.int32)
    return first, tf.minimum(last, side) - first


def _middle(x: tf.Tensor, side: tf.Tensor, new: tf.Tensor, first: tf.Tensor, size: int) -> tf.Tensor:
    """[B, n, R, C], pixels of an axis from `first` on → the middle of the resized axis, [B, size, R, C]."""
    length, row, channels = tf.unstack(tf.shape(x)[1:])
    scale = tf.cast(new, tf.float64) / tf.cast(side, tf.float64)
    shift = tf.cast(first, tf.float64) * scale - tf.cast(centre_start(new, size), tf.float64)
    y = tf.raw_ops.ScaleAndTranslate(
        images=tf.reshape(x, [-1, length, 1, row * channels]), size=[size, 1],
        scale=tf.stack([tf.cast(scale, tf.float32), 1.0]),
        translation=tf.stack([tf.cast(shift, tf.float32), 0.0]), kernel_type="triangle", antialias=True,
    )  # fmt: skip
    return tf.reshape(levels(y), [-1, size, row, channels])


def levels(x: tf.Tensor) -> tf.Tensor:
    """Rounded to whole levels in [0, 255]; halves up, also those that float32 leaves a little below."""
    return ops.clip(ops.floor(x + 0.5002), 0.0, 255.0)


def resize_weights(
    start, length, size: tf.Tensor, out: int | tf.Tensor, rows: tuple[tf.Tensor, int] | None = None
) -> tf.Tensor:
    """Antialiased bilinear resize of [start, start + length) to `out` pixels, as a matrix.

    start, length: float [B]; size: pixels of the whole axis → [B, out, size], rows sum to 1.
    The filter is PIL's: a triangle as wide as the larger of the two pixel sizes.
    rows: (first, number) of those that are wanted; all when None.
    """
    start, length = start[:, None, None], length[:, None, None]
    scale = length / tf.cast(out, tf.float32)
    first, count = rows or (0, out)
    place = tf.range(count, dtype=tf.float32) + tf.cast(first, tf.float32)
    centre = (place[None, :, None] + 0.5) * scale + start
    pixel = tf.range(size)[None, None, :]
    pixel = tf.cast(pixel, tf.float32)
    weight = tf.nn.relu(1.0 - tf.abs(pixel + 0.5 - centre) / tf.maximum(scale, 1.0))
    weight = tf.where((pixel >= start) & (pixel < start + length), weight, 0.0)
    return weight / tf.reduce_sum(weight, axis=2, keepdims=True)


def two_sided(rows: tf.Tensor, images: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """rows · image · columnsᵀ, for every image and channel.

    rows: [B, h, H], images: [B, H, W, C], columns: [B, w, W] → [B, h, w, C].
    """
    b, height, width, channels = tf.unstack(tf.shape(images))
    h, w = tf.shape(rows)[1], tf.shape(columns)[1]
    x = tf.matmul(rows, tf.reshape(images, [b, height, width * channels]))
    x = tf.reshape(x, [b, h, width, channels])
    if images.shape[-1] == 1:
        x = tf.matmul(x[..., 0], columns, transpose_b=True)[..., None]
    else:
        x = tf.einsum("bvj,bhjc->bhvc", columns, x)
    x = tf.reshape(x, [b, h, w, channels])
    x.set_shape([images.shape[0], rows.shape[1], columns.shape[1], images.shape[-1]])
    return x
