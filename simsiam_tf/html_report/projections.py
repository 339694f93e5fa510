"""PCA, t-SNE, clusters and spectrum of features, which are scaled to length one as for kNN."""

from __future__ import annotations

import dataclasses

import numpy as np

from simsiam_tf.methods import metrics

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
    """k-means clusters, the largest first: int [N] in [0, count), of at most N / 4 clusters."""
    from sklearn.cluster import KMeans

    count = max(1, min(count, len(features) // 4))
    kmeans = KMeans(count, n_init=4, random_state=seed)  # pyright: ignore[reportArgumentType]
    labels = kmeans.fit_predict(_normalised(features))
    order = np.argsort(-np.bincount(labels, minlength=count), kind="stable")
    return np.argsort(order)[labels]


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """eigenvalues: those of the covariance, largest first, [F]. rank: `metrics.effective_rank`."""

    eigenvalues: np.ndarray
    rank: float

    @property
    def shares(self) -> np.ndarray:
        """Each direction's share of the variance, [F], adding up to 1; zeros without variance."""
        total = self.eigenvalues.sum()
        return self.eigenvalues / total if total > 0 else self.eigenvalues

    def directions(self, share: float) -> int:
        """The least number of directions that hold a share of the variance. share: in (0, 1]."""
        return int(np.searchsorted(np.cumsum(self.shares), share - 1e-12) + 1)


def spectrum(features: np.ndarray) -> Spectrum:
    """The spectrum of features [N, F], N ≥ 2."""
    eigenvalues = np.linalg.eigvalsh(np.cov(_normalised(features, np.float64), rowvar=False))[::-1]
    return Spectrum(np.clip(eigenvalues, 0.0, None), metrics.effective_rank(features))


def _normalised(features: np.ndarray, dtype: type = np.float32) -> np.ndarray:
    z = np.asarray(features, dtype)
    return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
