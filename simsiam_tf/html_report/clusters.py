"""Features on a plane, and in groups, by scikit-learn."""

from __future__ import annotations

import numpy as np

CLUSTERS = 10
REDUCED = 50  # principal components that t-SNE starts from
PERPLEXITY = 30.0


def pca(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the first two principal components [N, 2], their shares of the variance [2]) of z/‖z‖."""
    from sklearn.decomposition import PCA

    fitted = PCA(2, svd_solver="full")
    return fitted.fit_transform(_normalised(features)), fitted.explained_variance_ratio_


def tsne(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """t-SNE of z/‖z‖ by way of its principal components: [N, 2], N ≥ 4."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    z = _normalised(features)
    z = PCA(min(REDUCED, *z.shape), random_state=seed).fit_transform(z)
    perplexity = min(PERPLEXITY, (len(z) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(z)


def clusters(features: np.ndarray, count: int = CLUSTERS, seed: int = 0) -> np.ndarray:
    """k-means groups of z/‖z‖, the largest first: int [N] in [0, count), of at most N / 4 groups."""
    from sklearn.cluster import KMeans

    count = max(1, min(count, len(features) // 4))
    found = KMeans(count, n_init=4, random_state=seed).fit_predict(_normalised(features))
    order = np.argsort(-np.bincount(found, minlength=count), kind="stable")
    return np.argsort(order)[found]


def _normalised(features: np.ndarray) -> np.ndarray:
    z = np.asarray(features, np.float32)
    return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
