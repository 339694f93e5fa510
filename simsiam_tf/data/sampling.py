"""Order and draws as functions of the step: nothing to save, nothing to lose.

Global batch position n = step × batch + row. Epoch and place within it follow from n. No epoch
drops images: a batch may straddle two epochs.
"""

from __future__ import annotations

import tensorflow as tf


def example_ids(seed: int, step: tf.Tensor, batch: int, size: int) -> tf.Tensor:
    """The examples of one global batch, int64 [batch], each in [0, size).

    Every epoch is a permutation of all `size` examples of its own. Needs batch ≤ size.
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
    """All random draws of one global batch: [batch, draws] in [0, 1)."""
    key = tf.stack([tf.constant(seed, tf.int64), tf.cast(step, tf.int64)])
    return tf.random.stateless_uniform([batch, draws], seed=key)


def steps_in(epochs: float, size: int, batch: int) -> int:
    """Steps that see `size` examples `epochs` times; at least 1."""
    return max(1, int(epochs * size) // batch)


def epoch_end(epoch: int, size: int, batch: int) -> int:
    """The step after which `epoch` epochs (counted from 1) have been seen whole."""
    return -(-epoch * size // batch)
