"""Nearest neighbours on a GPU, which TensorFlow searches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Computes products in float32, not in TF32, which has 10 bits and swaps neighbours of like cosines."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def merge_nearest(
    queries: np.ndarray, candidates: np.ndarray, best: np.ndarray, index: np.ndarray, first: int
) -> None:
    """As `knn.merge_nearest`, of the cosines of queries [M, F] and candidates [n, F], all of length 1."""
    with full_precision():
        merged = _merge(queries, candidates, best, index, tf.constant(first, tf.int64))
        best[:], index[:] = (t.numpy() for t in merged)


_ROWS, _INDEX = tf.TensorSpec([None, None]), tf.TensorSpec([None, None], tf.int64)


@tf.function(input_signature=[_ROWS, _ROWS, _ROWS, _INDEX, tf.TensorSpec([], tf.int64)], autograph=False)
def _merge(queries, candidates, best, index, first):
    k = tf.shape(best)[1]
    similarity = tf.matmul(queries, candidates, transpose_b=True)
    values, rows = tf.math.top_k(similarity, tf.minimum(k, tf.shape(candidates)[0]))
    values = tf.concat([best, values], axis=1)
    rows = tf.concat([index, tf.cast(rows, tf.int64) + first], axis=1)
    values, order = tf.math.top_k(values, k)
    return values, tf.gather(rows, order, batch_dims=1)
