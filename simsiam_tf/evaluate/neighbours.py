"""Weighted nearest-neighbour classification by cosine, in blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf


def knn_accuracy(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray,
    query_labels: np.ndarray,
    ks: Sequence[int] = (20, 200),
    temperature: float = 0.1,
    block: int = 1000,
) -> dict[int, float]:
    """Share of queries whose neighbours vote for their label, per k, in [0, 1].

    Each of the k nearest by cosine s votes with weight exp(s / temperature) (Wu et al. 2018).

    Args:
        bank: [N, F] features with int labels [N].
        queries: [M, F] features with int labels [M].
        ks: numbers of neighbours; those above N are cut to N.
        temperature: of the votes, > 0.
        block: queries at a time; memory grows with block · N.
    """
    classes = int(max(bank_labels.max(), query_labels.max())) + 1
    bank_t = tf.math.l2_normalize(tf.constant(bank, tf.float32), axis=1)
    labels = tf.constant(bank_labels, tf.int32)
    deepest = min(max(ks), len(bank))
    right = dict.fromkeys(ks, 0)
    for start in range(0, len(queries), block):
        q = tf.constant(queries[start : start + block], tf.float32)
        weight, label = (t.numpy() for t in _votes(q, bank_t, labels, tf.constant(deepest), temperature))
        truth = query_labels[start : start + block]
        rows = np.arange(len(truth))[:, None]
        for k in ks:
            score = np.zeros((len(truth), classes))
            np.add.at(score, (rows, label[:, :k]), weight[:, :k])
            right[k] += int((score.argmax(axis=1) == truth).sum())
    return {k: right[k] / len(queries) for k in ks}


@tf.function(reduce_retracing=True, autograph=False)
def _votes(q, bank, labels, deepest, temperature):
    """Weights and labels [M, deepest] of the nearest neighbours; the bank's rows have length 1."""
    similarity = tf.matmul(tf.math.l2_normalize(q, axis=1), bank, transpose_b=True)
    nearest, index = tf.math.top_k(similarity, deepest)
    # Only differences matter, so the nearest has weight 1 and nothing overflows.
    weight = tf.exp((nearest - nearest[:, :1]) / temperature)
    return weight, tf.gather(labels, index)
