"""Arithmetic of the augmentation on planes: the channels of a batch as tensors [B, H, W].

Memory bounds the speed of such arithmetic, so `Views` lets XLA compile it in stages, each one pass over the
planes. A stage ends where the next one reads neighbours, or one plane many times: within one stage, XLA
would compute these anew for every reading.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

GRAY = (0.299, 0.587, 0.114)  # ITU-R 601, as PIL's "L"
Planes = list[tf.Tensor]


def from_images(images: tf.Tensor) -> Planes:
    """[B, H, W, C] of any dtype → C × float32 [B, H, W]."""
    return [tf.cast(plane, tf.float32) for plane in tf.unstack(images, axis=-1)]


def to_images(planes: Planes) -> tf.Tensor:
    """C × [B, H, W] → [B, H, W, C]."""
    return tf.stack(planes, axis=-1)


def per_image(values: tf.Tensor) -> tf.Tensor:
    """[B] → [B, 1, 1]."""
    return values[:, None, None]


def luminance(planes: Planes) -> tf.Tensor:
    """[B, H, W] of one or three planes."""
    if len(planes) == 1:
        return planes[0]
    return tf.add_n([weight * plane for weight, plane in zip(GRAY, planes, strict=True)])


def blend(planes: Planes, op: tf.Tensor, factor: tf.Tensor) -> Planes:
    """factor · image + (1 − factor) · reference, clipped to [0, 255].

    op: int [B]; the reference is 0 for brightness, the image's mean luminance for contrast (1)
    and each pixel's luminance for saturation (2). factor: [B]; 1 changes nothing.
    """
    gray = luminance(planes)
    mean = tf.reduce_mean(gray, axis=[1, 2], keepdims=True)
    rest = 1.0 - factor
    reference = per_image(tf.where(op == 1, rest, 0.0)) * mean
    if len(planes) == 3:
        reference += per_image(tf.where(op == 2, rest, 0.0)) * gray
    factor = per_image(factor)
    return [tf.clip_by_value(factor * plane + reference, 0.0, 255.0) for plane in planes]


def shift_hue(planes: Planes, shift: tf.Tensor) -> Planes:
    """Turns the hue of image b by shift[b] turns, keeping saturation and value."""
    red, green, blue = planes
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    per_chroma = tf.where(chroma > 0, 1.0 / tf.where(chroma > 0, chroma, 1.0), 0.0)
    sixth = tf.where(
        value == red,
        (green - blue) * per_chroma,
        tf.where(value == green, 2.0 + (blue - red) * per_chroma, 4.0 + (red - green) * per_chroma),
    )
    sixth += 6.0 * per_image(shift)

    def channel(start: float) -> tf.Tensor:
        k = start + sixth
        k -= 6.0 * tf.floor(k / 6.0)
        return value - chroma * tf.clip_by_value(tf.minimum(k, 4.0 - k), 0.0, 1.0)

    return [channel(5.0), channel(3.0), channel(1.0)]


def blur_taps(sigma: tf.Tensor, radius: int) -> tf.Tensor:
    """Gaussian weights [B, 2 · radius + 1] for σ [B] in pixels; rows sum to 1."""
    offset = tf.range(-radius, radius + 1, dtype=tf.float32)
    taps = tf.exp(-0.5 * tf.square(offset / sigma[:, None]))
    return taps / tf.reduce_sum(taps, axis=1, keepdims=True)


def convolve_by_products(planes: Planes, taps: tf.Tensor, axis: int) -> Planes:
    """`pad` and `convolve` along axis 1 or 2 as one product with a matrix for each image. taps: [B, odd]."""
    (_, count), size = taps.shape.as_list(), planes[0].shape.as_list()[axis]
    assert count is not None and size is not None
    read = np.arange(size) + np.arange(count)[:, None] - count // 2  # the pixel that a tap reads: [taps, n]
    tap_matrices = np.eye(size, dtype=np.float32)[np.clip(read, 0, size - 1)]
    matrices = tf.reshape(tf.matmul(taps, tap_matrices.reshape(count, -1)), [-1, size, size])
    if axis == 1:
        return [tf.matmul(matrices, plane) for plane in planes]
    return [tf.matmul(plane, matrices, transpose_b=True) for plane in planes]


def pad(planes: Planes, radius: int, axis: int) -> Planes:
    """Continues the planes by their edge pixels at both ends of axis 1 or 2."""

    def padded(plane: tf.Tensor) -> tf.Tensor:
        first, last = (plane[:, :1], plane[:, -1:]) if axis == 1 else (plane[:, :, :1], plane[:, :, -1:])
        ends = [tf.repeat(edge, radius, axis=axis) for edge in (first, last)]
        return tf.concat([ends[0], plane, ends[1]], axis=axis)

    return [padded(plane) for plane in planes]


def convolve(planes: Planes, taps: tf.Tensor, axis: int) -> Planes:
    """Padded planes → weighted sums of neighbours along axis 1 or 2. taps: [B, odd]."""
    _, count = taps.shape.as_list()
    assert count is not None
    size = tf.shape(planes[0])[axis] - count + 1

    def shifted(plane: tf.Tensor, k: int) -> tf.Tensor:
        return plane[:, k : k + size] if axis == 1 else plane[:, :, k : k + size]

    return [tf.add_n([per_image(taps[:, k]) * shifted(plane, k) for k in range(count)]) for plane in planes]
