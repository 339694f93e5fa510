"""k-means on unit rows, with scikit-learn, also where these lie in a file larger than the memory.

It runs on one thread: with two, waiting for each other at every step, it was ten times as slow on a machine
that other programs kept busy, and less than twice as fast on one that was free.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from simsiam_tf.curation.unit_rows import UnitRows
from simsiam_tf.features.knn import unit_rows
from simsiam_tf.html_report.projections import fit_pca
from simsiam_tf.runtime import progress

SAMPLE = 4000  # rows by which the first centres and the silhouettes are computed,
ROWS_A_CLUSTER = 20  # or this number for each cluster, if that is more
FULL_ROWS = 20_000  # up to this number of rows, k-means takes all at once; above it, mini-batches
REDUCED = 16  # principal components: in many dimensions, silhouettes and densities do not tell clusters apart
MAX_STEPS = 50
TRIES, FEW_CLUSTERS = 5, 100  # draws of the first centres; one draw above this number of clusters
BATCH, BATCHES = 4096, 100  # rows of a mini-batch, at least k; number of mini-batches


def sample_rows(rows: UnitRows, count: int, seed: int) -> np.ndarray:
    """Sorted numbers of at most `count` rows, a function of the seed."""
    chosen = np.random.default_rng(seed).choice(len(rows), min(count, len(rows)), replace=False)
    return np.sort(chosen)


def reduced_sample(rows: UnitRows, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Some rows [n, F], and their first `REDUCED` principal components, of length 1."""
    sample = rows[sample_rows(rows, count, seed)]
    return sample, unit_rows(fit_pca(sample, REDUCED, seed).transform(sample))


def fit_centres(rows: UnitRows, k: int, seed: int = 0) -> np.ndarray:
    """Centres of k clusters, float32 [k, F]; they begin as those of a sample's principal components."""
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    sample, reduced = reduced_sample(rows, max(SAMPLE, ROWS_A_CLUSTER * k), seed)
    cluster = fit(reduced, k, seed)[1]
    start = np.zeros((k, rows.width), np.float32)
    np.add.at(start, cluster, sample)
    start /= np.maximum(np.bincount(cluster, minlength=k), 1)[:, None]
    if len(rows) <= FULL_ROWS:
        return fit(rows[:], k, seed, start)[0]
    options: dict[str, Any] = {"init": start, "n_init": 1, "random_state": seed}
    model, batch_rows = MiniBatchKMeans(k, **options), max(BATCH, k)  # as scikit-learn demands
    rng = np.random.default_rng(seed)
    for _ in progress.bar(range(BATCHES), "clusters", unit="batch", leave=False):
        batch = rows[np.sort(rng.choice(len(rows), min(batch_rows, len(rows)), replace=False))]
        with threadpool_limits(1):
            model.partial_fit(batch)
    return np.asarray(model.cluster_centers_, np.float32)


def fit(
    x: np.ndarray, k: int, seed: int = 0, start: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """k-means of rows in memory, [n, F]: (centres float32 [k, F], clusters int [n]).

    start: first centres [k, F]; by k-means++ when None, the best of `TRIES` draws up to `FEW_CLUSTERS`.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    options: dict[str, Any] = {"init": start, "n_init": 1}
    if start is None:
        options = {"init": "k-means++", "n_init": TRIES if k <= FEW_CLUSTERS else 1}
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer distinct rows than clusters
        model = KMeans(k, max_iter=MAX_STEPS, random_state=seed, **options).fit(x)
    return np.asarray(model.cluster_centers_, np.float32), np.asarray(model.labels_)


def assign(rows: UnitRows, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre of each row, int64 [N], and the row's cosine with it, float32 [N]."""
    half = np.square(centres).sum(axis=1) / 2  # |x − c|² is least where x·c − |c|²/2 is largest
    length = np.maximum(2 * half, 1e-12) ** 0.5
    cluster, cosine = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
    for block, x in rows.blocks():
        products = x @ centres.T
        cluster[block] = (products - half).argmax(axis=1)
        at = cluster[block]
        cosine[block] = products[np.arange(len(x)), at] / length[at]
    return cluster, cosine
