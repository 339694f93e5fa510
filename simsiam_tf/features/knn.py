"""Nearest neighbours by cosine, in blocks, and classification by their votes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from simsiam_tf.runtime import progress

BLOCK = 2**24  # numbers of the bank in memory at a time
TINY = 1e-12  # rows whose squared length is smaller, or not finite, are scaled before they are normalised


def knn_accuracy(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray,
    query_labels: np.ndarray,
    ks: Sequence[int] = (20, 200),
    temperature: float = 0.1,
    block: int = 1000,
    query_rows: np.ndarray | None = None,
) -> dict[int, float]:
    """kNN accuracy of the queries: k → share in [0, 1].

    Each of the k nearest by cosine s votes for its label with weight exp(s / temperature) (Wu et al. 2018).

    Args:
        bank, bank_labels: [N, F] features with int labels [N].
        queries, query_labels: [M, F] features with int labels [M].
        ks: numbers of neighbours; those above N are cut to N.
        temperature: temperature of the votes, > 0.
        block: queries at a time.
        query_rows: int [M], the rows of the bank that the queries are, where they are from it: no row votes
            for itself (leave-one-out).
    """
    neighbours = max(ks) if query_rows is None else max(ks) + 1
    similarity, index = nearest(bank, queries, neighbours, block)
    if query_rows is not None:
        itself = index == query_rows[:, None]
        # Where ties pushed a row out of its own neighbours, drop the last neighbour instead.
        itself[~itself.any(axis=1), -1] = True
        similarity, index = (a[~itself].reshape(len(queries), -1) for a in (similarity, index))
    return vote_accuracy(similarity, np.asarray(bank_labels)[index], query_labels, ks, temperature, block)


def vote_accuracy(
    similarity: np.ndarray,
    labels: np.ndarray,
    query_labels: np.ndarray,
    ks: Sequence[int],
    temperature: float = 0.1,
    block: int = 1000,
) -> dict[int, float]:
    """Accuracy of M queries by the votes of their neighbours: k → share in [0, 1]; see `knn_accuracy`.

    Args:
        similarity, labels: [M, k], cosine and label of each neighbour, the nearest first. A cosine of −inf
            has no vote; the first is finite.
        query_labels: int [M].
    """
    classes = int(max(np.max(labels), np.max(query_labels))) + 1
    # Only ratios of weights matter: the nearest neighbour gets weight 1, so that nothing overflows.
    weight, right = np.exp((similarity - similarity[:, :1]) / temperature), dict.fromkeys(ks, 0)
    for start in range(0, len(labels), block):
        rows = slice(start, start + block)
        truth = query_labels[rows]
        for k in ks:
            votes = np.zeros((len(truth), classes))
            np.add.at(votes, (np.arange(len(truth))[:, None], labels[rows, :k]), weight[rows, :k])
            right[k] += int((votes.argmax(axis=1) == truth).sum())
    return {k: right[k] / len(labels) for k in ks}


def nearest(
    bank: np.ndarray, queries: np.ndarray, k: int, block: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """Exact nearest neighbours by cosine, the nearest first; of equal cosines, the lowest row first.

    Both sets may be memory-mapped files: they are read in blocks, the bank once. Memory holds the result,
    one block of each set, and the similarities between these blocks.

    Args:
        bank, queries: [N, F] and [M, F].
        k: neighbours of each query, at most N.
        block: queries at a time.

    Returns:
        (cosines float32 [M, k], rows of the bank int64 [M, k]).
    """
    k = min(k, len(bank))
    bank_block = max(k, BLOCK // bank.shape[1])
    best = np.full((len(queries), k), -np.inf, np.float32)
    index = np.zeros((len(queries), k), np.int64)
    starts = range(0, len(bank), bank_block)
    for start in progress.bar(starts, "neighbours", unit="block", leave=False):
        candidates = _unit(bank[start : start + bank_block])
        offset = tf.constant(start, tf.int64)
        for at in range(0, len(queries), block):
            rows = slice(at, at + block)
            merged = _merge_nearest(_unit(queries[rows]), candidates, best[rows], index[rows], offset)
            best[rows], index[rows] = (t.numpy() for t in merged)
    return best, index


def _unit(rows: np.ndarray) -> tf.Tensor:
    """[n, F] → float32 rows of length 1. Rows of zeros stay zeros."""
    with np.errstate(over="ignore"):
        unit = tf.constant(np.asarray(rows, np.float32))
    squares = tf.reduce_sum(tf.square(unit), axis=1, keepdims=True)
    if not tf.reduce_all((squares > TINY) & tf.math.is_finite(squares)):  # squares leave float32's range
        largest = np.abs(np.asarray(rows, np.float64)).max(axis=1, keepdims=True)
        unit = tf.constant((rows / np.where(largest > 0, largest, 1)).astype(np.float32))
        squares = tf.maximum(tf.reduce_sum(tf.square(unit), axis=1, keepdims=True), TINY)
    return unit * tf.math.rsqrt(squares)


_ROWS, _INDEX = tf.TensorSpec([None, None]), tf.TensorSpec([None, None], tf.int64)


@tf.function(input_signature=[_ROWS, _ROWS, _ROWS, _INDEX, tf.TensorSpec([], tf.int64)], autograph=False)
def _merge_nearest(queries, candidates, best, index, start):
    """The k best of (`best`, `index`), both [M, k], and of `candidates`, rows of the bank from `start` on."""
    k = tf.shape(best)[1]
    similarity = tf.matmul(queries, candidates, transpose_b=True)
    values, rows = tf.math.top_k(similarity, tf.minimum(k, tf.shape(candidates)[0]))
    values = tf.concat([best, values], axis=1)
    rows = tf.concat([index, tf.cast(rows, tf.int64) + start], axis=1)
    values, order = tf.math.top_k(values, k)
    return values, tf.gather(rows, order, batch_dims=1)
