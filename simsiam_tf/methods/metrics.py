"""Metrics that show whether embeddings collapse (Sec. 4.1, Fig. 2)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import tensorflow as tf


def collapse_std(z: tf.Tensor) -> tf.Tensor:
    """Mean over channels of the std of z/‖z‖ over the batch, times √d (Fig. 2, middle).

    z: [B, d]. The metric is 0 when every image has the same embedding, and about 1 when embeddings spread
    like an isotropic Gaussian: the paper's 1/√d, scaled to be comparable at any d.
    """
    z = tf.math.l2_normalize(tf.cast(z, tf.float32), axis=-1)
    std = tf.math.reduce_std(z, axis=0)
    return tf.reduce_mean(std) * tf.sqrt(tf.cast(tf.shape(z)[-1], tf.float32))


def effective_rank(z: np.ndarray) -> float:
    """Exponential of the entropy of the normalised eigenvalues of the covariance of z/‖z‖.

    Roy & Vetterli 2007. z: [B, d]. The rank lies in [1, min(B − 1, d)]; it is 1 when embeddings lie on a
    line or on a point, and when one is not finite.
    """
    z = np.asarray(z, np.float64)
    z = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    z = z - z.mean(axis=0)
    # The Gram matrix and the covariance have the same non-zero eigenvalues; the smaller matrix is faster.
    gram = z @ z.T if z.shape[0] <= z.shape[1] else z.T @ z
    total = np.trace(gram)
    if not np.isfinite(total) or total < 1e-12 * len(z):  # eigvalsh raises on NaN
        return 1.0
    eigenvalues = np.clip(np.linalg.eigvalsh(gram), 0.0, None)
    share = eigenvalues[eigenvalues > total * 1e-12] / total
    return float(np.exp(-(share * np.log(share)).sum()))


def all_finite(variables: Iterable) -> bool:
    """Whether all values of the floating-point variables are finite."""
    values = (tf.convert_to_tensor(v) for v in variables)
    return all(np.isfinite(x.numpy()).all() for x in values if x.dtype.is_floating)
