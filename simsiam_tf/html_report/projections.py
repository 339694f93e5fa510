"""PCA, t-SNE, UMAP, clusters and spectrum of features, first scaled to length one, as for kNN."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np

from simsiam_tf.features.knn import unit_rows

CLUSTERS = 10
REDUCED = 50  # principal components that t-SNE and UMAP start from
PERPLEXITY = 30.0
ROUNDING = 1e-6  # a principal component of unit rows that is nowhere larger is 0
UMAP_NEIGHBOURS = 15  # umap-learn's default


def pca(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the first two principal components [N, 2], their shares of the variance [2]); 0 for a missing one."""
    z = unit_rows(features)
    fitted, plane, shares = fit_pca(z, 2, solver="full"), np.zeros((len(z), 2)), np.zeros(2)
    found = fitted.n_components_
    plane[:, :found], shares[:found] = fitted.transform(z), np.nan_to_num(fitted.explained_variance_ratio_)
    return plane, shares


def tsne(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """t-SNE from the principal components, and these where they span no plane: [N, 2], N ≥ 4."""
    z = unit_rows(features)
    reduced = fit_pca(z, REDUCED, seed).transform(z)
    return tsne_plane(reduced, seed) if spans_plane(reduced) else pca(features)[0]


def spans_plane(z: np.ndarray) -> bool:
    """Whether t-SNE and UMAP can begin with principal components [N, R]: two at least, and not all 0."""
    return z.shape[1] > 1 and float(np.abs(z).max()) > ROUNDING


def fit_pca(z: np.ndarray, count: int, seed: int = 0, solver: Any = "auto") -> Any:
    """scikit-learn's PCA of rows z [N, F] to at most `count` components."""
    from sklearn.decomposition import PCA

    with np.errstate(invalid="ignore"):  # of equal rows, shares of the variance are 0 / 0
        return PCA(min(count, *z.shape), svd_solver=solver, random_state=seed).fit(z)


def tsne_plane(z: np.ndarray, seed: int = 0) -> np.ndarray:
    """t-SNE (van der Maaten & Hinton 2008) of rows z [N, R], N ≥ 4: [N, 2]."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(PERPLEXITY, (len(z) - 1) / 3)
    with threadpool_limits(1):  # as in curation/k_means.py: on a busy machine, threads wait for each other
        return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(z)


def umap_plane(z: np.ndarray, seed: int = 0) -> np.ndarray:
    """UMAP (McInnes et al. 2018) of rows z [N, R], N ≥ 4: [N, 2]. ImportError without umap-learn."""
    neighbours = min(UMAP_NEIGHBOURS, len(z) - 1)
    options = {"n_components": 2, "n_neighbors": neighbours, "init": "pca", "n_jobs": 1}
    return np.asarray(_import_umap().UMAP(random_state=seed, **options).fit_transform(z))


def _import_umap() -> Any:
    """The module umap, without its parametric form, which would load TensorFlow and PyTorch."""
    hidden = "umap.parametric_umap" not in sys.modules
    if hidden:
        sys.modules["umap.parametric_umap"] = None  # pyright: ignore[reportArgumentType]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import umap
    finally:
        if hidden:
            del sys.modules["umap.parametric_umap"]
    return umap


def clusters(features: np.ndarray, count: int = CLUSTERS, seed: int = 0) -> np.ndarray:
    """The k-means cluster of each row, numbered from the largest on: int [N].

    There are at most `count` clusters, and at most N / 4, but at least one.
    """
    from sklearn.cluster import KMeans

    count = max(1, min(count, len(features) // 4))
    kmeans = KMeans(count, n_init=4, random_state=seed)  # pyright: ignore[reportArgumentType]
    labels = kmeans.fit_predict(unit_rows(features))
    order = np.argsort(-np.bincount(labels, minlength=count), kind="stable")
    return np.argsort(order)[labels]


def variance_shares(features: np.ndarray) -> np.ndarray:
    """Share of the variance of features [N, F] by principal direction, the largest first, [F].

    N ≥ 2. Zeros without variance.
    """
    eigenvalues = np.linalg.eigvalsh(np.cov(unit_rows(features), rowvar=False))[::-1]
    eigenvalues = np.clip(eigenvalues, 0.0, None)
    return eigenvalues / max(eigenvalues.sum(), np.finfo(float).tiny)
