"""Similarities of a prediction p and a target z: pure functions, no gradient stopped."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def negative_cosine(p: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    """D(p, z) of Eq. 1: mean negative cosine, a scalar in [-1, 1].

    p, z: [B, d] float tensors. Stops no gradient; the method decides.
    """
    p = tf.math.l2_normalize(p, axis=-1)
    z = tf.math.l2_normalize(z, axis=-1)
    return -tf.reduce_mean(tf.reduce_sum(p * z, axis=-1))


def cross_entropy(p: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    """D(p, z) = -softmax(z) · log softmax(p) of Sec. 4.5, a scalar in [0, inf).

    p, z: [B, d] float tensors; the softmax runs over the d channels.
    """
    return -tf.reduce_mean(tf.reduce_sum(tf.nn.softmax(z) * tf.nn.log_softmax(p), axis=-1))


SIMILARITY: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "cosine": negative_cosine,  # 68.1
    "cross_entropy": cross_entropy,  # 63.2, Sec. 4.5
}
