"""The order of images and the augmentation's draws, as functions of the step: there is no state to save.

Row r of step s is number n = s × batch + r of all images seen. Its epoch is n // size and its place in the
epoch n % size. No epoch drops images: a batch may straddle two epochs.
"""

from __future__ import annotations

import tensorflow as tf


def example_ids(seed: int, step: tf.Tensor, batch: int, size: int) -> tf.Tensor:
    """The ids of the images of one batch: int64 [batch], each in [0, size).

    Every epoch has its own permutation of all `size` ids. Needs batch ≤ size.
    """
    n = tf.cast(step, tf.int64) * batch + tf.range(batch, dtype=tf.int64)
    epoch, place = n // size, n % size
    first = epoch[0]
    shuffled = [
        tf.random.experimental.index_shuffle(  # pyright: ignore[reportAttributeAccessIssue]
            place, seed=tf.stack([tf.constant(seed, tf.int64), e]), max_index=size - 1
        )
        for e in (first, first + 1)
    ]
    return tf.where(epoch == first, *shuffled)


def uniforms(seed: int, step: tf.Tensor, batch: int, draws: int) -> tf.Tensor:
    """All random draws of one batch: float32 [batch, draws] in [0, 1)."""
    key = tf.stack([tf.constant(seed, tf.int64), tf.cast(step, tf.int64)])
    return tf.random.stateless_uniform([batch, draws], seed=key)


def steps_in(epochs: float, size: int, batch: int) -> int:
    """Steps of `epochs` passes over `size` images, rounded down; at least 1, but 0 of 0 epochs."""
    return max(1, int(epochs * size) // batch) if epochs else 0


def epoch_end(epoch: int, size: int, batch: int) -> int:
    """The number of steps after which the first `epoch` epochs are complete."""
    return -(-epoch * size // batch)
