"""Boxes of random area and aspect, and antialiased resizing of batches."""

from __future__ import annotations

import math

import tensorflow as tf

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


def resize_weights(start, length, size: tf.Tensor, out: int | tf.Tensor) -> tf.Tensor:
    """Antialiased bilinear resize of [start, start + length) to `out` pixels, as a matrix.

    start, length: float [B]; size: pixels of the whole axis → [B, out, size], rows sum to 1.
    The filter is PIL's: a triangle as wide as the larger of the two pixel sizes.
    """
    start, length = start[:, None, None], length[:, None, None]
    scale = length / tf.cast(out, tf.float32)
    centre = (tf.range(out, dtype=tf.float32)[None, :, None] + 0.5) * scale + start
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
