"""PCA, t-SNE, clusters and spectrum of features, which are first scaled to length one, as for kNN."""

from __future__ import annotations

import numpy as np

CLUSTERS = 10
REDUCED = 50  # principal components that t-SNE starts from
PERPLEXITY = 30.0


def pca(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the first two principal components [N, 2], their shares of the variance [2])."""
    from sklearn.decomposition import PCA

    fitted = PCA(2, svd_solver="full")
    return fitted.fit_transform(_normalised(features)), fitted.explained_variance_ratio_


def tsne(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """t-SNE from the principal components: [N, 2], N ≥ 4."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    z = _normalised(features)
    z = PCA(min(REDUCED, *z.shape), random_state=seed).fit_transform(z)
    perplexity = min(PERPLEXITY, (len(z) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(z)


def clusters(features: np.ndarray, count: int = CLUSTERS, seed: int = 0) -> np.ndarray:
    """The k-means cluster of each row, numbered from the largest on: int [N].

    There are at most `count` clusters, and at most N / 4, but at least one.
    """
    from sklearn.cluster import KMeans

    count = max(1, min(count, len(features) // 4))
    kmeans = KMeans(count, n_init=4, random_state=seed)  # pyright: ignore[reportArgumentType]
    labels = kmeans.fit_predict(_normalised(features))
    order = np.argsort(-np.bincount(labels, minlength=count), kind="stable")
    return np.argsort(order)[labels]


def variance_shares(features: np.ndarray) -> np.ndarray:
    """Share of the variance of features [N, F] by principal direction, the largest first, [F].

    N ≥ 2. Zeros without variance.
    """
    eigenvalues = np.linalg.eigvalsh(np.cov(_normalised(features, np.float64), rowvar=False))[::-1]
    eigenvalues = np.clip(eigenvalues, 0.0, None)
    return eigenvalues / max(eigenvalues.sum(), np.finfo(float).tiny)


def _normalised(features: np.ndarray, dtype: type = np.float32) -> np.ndarray:
    z = np.asarray(features, dtype)
    return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
