"""Encoded bytes → pixels."""

from __future__ import annotations

import tensorflow as tf


def decode(data: tf.Tensor, channels: int = 3) -> tf.Tensor:
    """Scalar string of a JPEG, PNG, WebP, BMP or GIF → uint8 [H, W, channels]; an animation's first frame."""

    def jpeg() -> tf.Tensor:
        # The exact transform gives Pillow's pixels to the bit; TensorFlow's default is off by a level.
        return tf.io.decode_jpeg(data, channels=channels, dct_method="INTEGER_ACCURATE")

    def other() -> tf.Tensor:
        return tf.io.decode_image(data, channels=channels, expand_animations=False)

    return tf.ensure_shape(tf.cond(tf.io.is_jpeg(data), jpeg, other), [None, None, channels])
