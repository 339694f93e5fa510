"""Measures of features by their spectrum, which need no labels; each with the paper it is from."""

from __future__ import annotations

import numpy as np

EPSILON = 1e-7  # added to shares of a spectrum, as in RankMe


def rankme(features: np.ndarray) -> float:
    """RankMe, the effective rank of features [N, F]: in [1, min(N, F)] (Garrido et al. 2023, Eq. 1 and 2).

    The exponential of the entropy of the singular values, each divided by their sum. Features are not
    centred. 1 where a feature is not finite.
    """
    x = np.asarray(features, np.float64)
    gram = x.T @ x if len(x) >= x.shape[1] else x @ x.T  # the smaller has the same eigenvalues but for zeros
    if not np.isfinite(gram).all():
        return 1.0
    return _effective_rank(np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0.0, None)))


def alpha_req(features: np.ndarray) -> float:
    """α-ReQ: α of the power law λ_i ∝ i^−α of the covariance of features [N, F] (Agrawal et al. 2022).

    The eigenvalues decrease from i = 1 on; α is fitted by least squares to the logarithms of those above
    1e-10 of the largest. The paper finds the best features near α = 1. NaN with fewer than two such values.
    """
    x = np.asarray(features, np.float64)
    x = x - x.mean(axis=0)
    gram = x.T @ x if len(x) >= x.shape[1] else x @ x.T
    if not np.isfinite(gram).all():
        return float("nan")
    values = np.linalg.eigvalsh(gram)[::-1]
    values = values[values > 1e-10 * values[0]]
    if len(values) < 2:
        return float("nan")
    slope, _ = np.polyfit(np.log(np.arange(1, len(values) + 1)), np.log(values), 1)
    return float(-slope)


def lidar(views: np.ndarray, shrinkage: float = 1e-4) -> float:
    """LiDAR: the effective rank of the LDA matrix of views as classes (Thilak et al. 2024, Eq. 1 to 3).

    Σ_w^−½ Σ_b Σ_w^−½, where Σ_b is the covariance of the images' mean features and Σ_w that of views around
    the mean of their image.

    Args:
        views: features [N, q, F] of q ≥ 2 views of each of N images. (The paper: q = 10, N = 1,000.)
        shrinkage: δ, added to the diagonal of Σ_w, as a share of its mean.

    Returns:
        A number from 1 to min(N − 1, F); 1 where a feature is not finite or nothing varies.
    """
    x = np.asarray(views, np.float64)
    count, q, width = x.shape
    means = x.mean(axis=1)
    within = (x - means[:, None]).reshape(-1, width)
    between = means - means.mean(axis=0)
    sigma_w = within.T @ within / (count * (q - 1))
    level = np.trace(sigma_w) / width
    if not np.isfinite(level) or level == 0 or not np.isfinite(between).all():
        return 1.0
    variances, axes = np.linalg.eigh(sigma_w + shrinkage * level * np.eye(width))
    whitened = between @ axes / np.sqrt(variances)
    gram = whitened.T @ whitened / max(1, count - 1)
    return _effective_rank(np.clip(np.linalg.eigvalsh(gram), 0.0, None))


def _effective_rank(values: np.ndarray) -> float:
    """exp of the entropy of values ≥ 0 as shares of their sum; 1 where all are 0."""
    total = values.sum()
    if total == 0:
        return 1.0
    share = values / total + EPSILON
    return float(np.exp(-(share * np.log(share)).sum()))
