"""Losses of SimSiam and of the compared methods, as pure functions.

No loss stops a gradient; the method decides.
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
    """D(p, z) = -softmax(z) · log softmax(p) of Sec. 4.5, the mean over the batch, in [0, inf).

    p, z: [B, d] float tensors; the softmax runs over the d channels.
    """
    return -tf.reduce_mean(tf.reduce_sum(tf.nn.softmax(z) * tf.nn.log_softmax(p), axis=-1))


SIMILARITY: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {  # Sec. 4.5, ImageNet top-1
    "cosine": negative_cosine,  # 68.1 %
    "cross_entropy": cross_entropy,  # 63.2 %
}


def nt_xent(
    queries: tf.Tensor, keys: tf.Tensor, self_key: tf.Tensor, positive: tf.Tensor, temperature: float
) -> tf.Tensor:
    """SimCLR's loss (Chen et al., arXiv 2002.05709, Eq. 1): mean −log softmax of the positive, in [0, inf).

    The logits of a query are its cosines with all keys, except that of its own view, divided by τ.

    Args:
        queries: [n, d], not normalised.
        keys: [m, d], both views of the batch over all replicas.
        self_key: int [n], row in `keys` of the view that the query represents or is predicted from.
        positive: int [n], row in `keys` of the other view of its image.
        temperature: τ > 0.
    """
    logits = _cosines(queries, keys) / temperature
    itself = tf.one_hot(self_key, tf.shape(keys)[0], on_value=True, off_value=False, dtype=tf.bool)
    logits = tf.where(itself, logits.dtype.min, logits)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(positive, logits))


def info_nce(queries: tf.Tensor, keys: tf.Tensor, queue: tf.Tensor, temperature: float) -> tf.Tensor:
    """MoCo's loss (He et al., arXiv 1911.05722, Eq. 1): mean −log softmax of the positive key, in [0, inf).

    Args:
        queries, keys: [B, d], of two views of the same images, not normalised.
        queue: [K, d], keys of earlier images, the negatives.
        temperature: τ > 0.
    """
    q = tf.math.l2_normalize(queries, axis=-1)
    positive = tf.reduce_sum(q * tf.math.l2_normalize(keys, axis=-1), axis=-1, keepdims=True)
    logits = tf.concat([positive, _cosines(queries, queue)], axis=-1) / temperature
    first = tf.zeros(tf.shape(queries)[:1], tf.int32)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(first, logits))


def sinkhorn_knopp(
    scores: tf.Tensor,
    epsilon: float,
    iterations: int,
    sum_replicas: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> tf.Tensor:
    """SwAV's codes (Caron et al., arXiv 2006.09882, Eq. 3): prototypes get equal shares of the batch.

    Args:
        scores: [B, P], similarity of every image of this replica to every prototype.
        epsilon: ε > 0 in exp(scores / ε).
        iterations: how often the prototypes, then the images, are rescaled.
        sum_replicas: sums a tensor over all replicas.

    Returns:
        [B, P]; each row sums to 1.
    """
    codes = tf.exp(scores / epsilon)
    for _ in range(iterations):
        codes /= sum_replicas(tf.reduce_sum(codes, axis=0))
        codes /= tf.reduce_sum(codes, axis=1, keepdims=True)
    return codes


def off_diagonal_squares(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Σ_i Σ_{j≠i} M_ij² of M = aᵀ b, a scalar ≥ 0, as in the losses of VICReg and Barlow Twins.

    a, b: [n, d] float tensors. The sum over all i and j is that of (a aᵀ) ∘ (b bᵀ), [n, n], which is smaller
    than M, [d, d], where d is larger than the batch.
    """
    n, d = a.shape
    if n and d and n < d:
        products = tf.matmul(a, a, transpose_b=True) * tf.matmul(b, b, transpose_b=True)
    else:
        products = tf.square(tf.matmul(a, b, transpose_a=True))
    return tf.reduce_sum(products) - tf.reduce_sum(tf.square(tf.reduce_sum(a * b, axis=0)))


def _cosines(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Cosines of all pairs of rows: [n, d], [m, d] → [n, m]."""
    return tf.matmul(tf.math.l2_normalize(a, axis=-1), tf.math.l2_normalize(b, axis=-1), transpose_b=True)
