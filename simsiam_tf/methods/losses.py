"""What predictions are compared by, in SimSiam and in the methods it is compared with: pure functions.

None stops a gradient; the method decides.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def negative_cosine(p: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    """D(p, z) of Eq. 1: mean negative cosine, a scalar in [-1, 1].

    p, z: [B, d] float tensors.
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


def nt_xent(
    queries: tf.Tensor, keys: tf.Tensor, own: tf.Tensor, positive: tf.Tensor, temperature: float
) -> tf.Tensor:
    """SimCLR's loss (Chen et al., arXiv 2002.05709, Eq. 1): mean −log softmax of the positive, in [0, inf).

    Each query is compared by cosine / temperature with all keys but its own.

    Args:
        queries: [n, d], of any length.
        keys: [m, d], both views of the whole batch.
        own: int [n], which key is the query itself, or what it was predicted from.
        positive: int [n], which key is the other view of its image.
        temperature: τ > 0.
    """
    logits = _cosines(queries, keys) / temperature
    itself = tf.one_hot(own, tf.shape(keys)[0], on_value=True, off_value=False, dtype=tf.bool)
    logits = tf.where(itself, logits.dtype.min, logits)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(positive, logits))


def info_nce(queries: tf.Tensor, keys: tf.Tensor, queue: tf.Tensor, temperature: float) -> tf.Tensor:
    """MoCo's loss (He et al., arXiv 1911.05722, Eq. 1): mean −log softmax of the own key, in [0, inf).

    Args:
        queries, keys: [B, d], of two views of the same images.
        queue: [K, d], keys of earlier images, to which a query should not be similar.
        temperature: τ > 0.
    """
    q = tf.math.l2_normalize(queries, axis=-1)
    alike = tf.reduce_sum(q * tf.math.l2_normalize(keys, axis=-1), axis=-1, keepdims=True)
    logits = tf.concat([alike, _cosines(queries, queue)], axis=-1) / temperature
    first = tf.zeros(tf.shape(queries)[:1], tf.int32)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(first, logits))


def sinkhorn_knopp(
    scores: tf.Tensor,
    epsilon: float,
    iterations: int,
    total: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> tf.Tensor:
    """SwAV's codes (Caron et al., arXiv 2006.09882, Eq. 3): every prototype takes the same share of a batch.

    Args:
        scores: [B, P], similarity of every image of this replica to every prototype.
        epsilon: smoothness ε > 0 of exp(scores / ε).
        iterations: of scaling prototypes, then images.
        total: sums a tensor over all replicas.

    Returns:
        [B, P]; each row sums to 1.
    """
    codes = tf.exp(scores / epsilon)
    for _ in range(iterations):
        codes /= total(tf.reduce_sum(codes, axis=0))
        codes /= tf.reduce_sum(codes, axis=1, keepdims=True)
    return codes


def _cosines(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """[n, d], [m, d] → [n, m]"""
    return tf.matmul(tf.math.l2_normalize(a, axis=-1), tf.math.l2_normalize(b, axis=-1), transpose_b=True)
