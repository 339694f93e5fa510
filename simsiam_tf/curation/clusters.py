"""Groups of pictures by k-means or HDBSCAN, each with its most central pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from simsiam_tf.curation import k_means
from simsiam_tf.curation.duplicates import Duplicates
from simsiam_tf.curation.unit_rows import UnitRows, as_unit_rows, check_count, check_values
from simsiam_tf.html_report.projections import fit_pca
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.display_text import counted
from simsiam_tf.runtime.errors import UserError

COUNTS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # numbers of clusters to choose from
CENTRAL = 12  # rows that show a cluster
HDBSCAN_ROWS = 10_000  # the most rows that HDBSCAN sees; it compares all pairs


@dataclasses.dataclass(frozen=True)
class Clusters:
    """K clusters, the largest first.

    cluster: int64 [N], of each row, in [0, K); −1 for rows in none (HDBSCAN). size: int64 [K]. share: float64
    [K], size / N. central: int64 [K, at most C], rows of each cluster from its centre on, −1 where it has
    fewer. classes: [L], the labels that occur, sorted; empty without labels. label_counts: int64 [K, L].
    silhouette: number of clusters → mean silhouette in [−1, 1] on a sample, of each number tried.
    """

    cluster: np.ndarray
    size: np.ndarray
    share: np.ndarray
    central: np.ndarray
    classes: np.ndarray
    label_counts: np.ndarray
    silhouette: dict[int, float]


def k_means_clusters(
    features: np.ndarray | UnitRows,
    counts: int | Sequence[int] = COUNTS,
    labels: Sequence | np.ndarray | None = None,
    central: int = CENTRAL,
    seed: int = 0,
    copies: Duplicates | None = None,
) -> Clusters:
    """k-means on unit rows.

    Of several numbers, the one with the largest silhouette is chosen (Rousseeuw 1987), by cosines of the
    first `k_means.REDUCED` principal components of a sample.

    Args:
        features: [N, F], may be memory-mapped. Above `k_means.FULL_ROWS` rows, k-means takes mini-batches.
        counts: the number of clusters, at most N, or numbers to choose from on `k_means.SAMPLE` rows; those
            above N / 2 are not tried.
        labels: [N], counted in each cluster.
        central: number of central rows of each cluster in the result.
        seed: seed of the samples and the first centres.
        copies: result of `duplicates`; the rows that it leaves out are not central rows, unless a cluster has
            no others.

    Raises:
        UserError: features as in `UnitRows`, labels of another shape, or a number of clusters outside [1, N].
    """
    rows = as_unit_rows(features)
    labels = check_values(labels, len(rows), "labels")
    if isinstance(counts, int):
        counts = [counts]
        if counts[0] > len(rows):
            raise UserError(f"clusters={counts[0]}: there are only {len(rows):,} pictures. Pass fewer.")
    else:
        counts = [k for k in counts if k <= len(rows) // 2] or [1]
    check_count(min(counts), 1, "clusters")
    silhouette: dict[int, float] = {}
    if len(counts) > 1:
        _, reduced = k_means.reduced_sample(rows, k_means.SAMPLE, seed)
        with progress.bar(
            None, "choosing the number of clusters", total=sum(counts), unit="cluster", leave=False
        ) as bar:
            for k in counts:
                silhouette[k] = _silhouette(reduced, k_means.fit(reduced, min(k, len(reduced)), seed)[1])
                bar.update(k)
    k = max(counts, key=lambda k: silhouette.get(k, 0.0))
    with progress.announced(
        f"grouping {counted(len(rows), 'picture', form=',')} into {counted(k, 'cluster')}"
    ):
        cluster, cosine = k_means.assign(rows, k_means.fit_centres(rows, k, seed))
    return _describe_clusters(cluster, cosine, labels, central, silhouette, copies)


def _silhouette(x: np.ndarray, cluster: np.ndarray) -> float:
    from sklearn.metrics import silhouette_score

    if not 1 < len(np.unique(cluster)) < len(cluster):
        return -1.0
    return float(silhouette_score(x, cluster, metric="cosine"))


def hdbscan_clusters(
    features: np.ndarray | UnitRows,
    min_size: int | None = None,
    labels: Sequence | np.ndarray | None = None,
    central: int = CENTRAL,
    seed: int = 0,
    copies: Duplicates | None = None,
) -> Clusters:
    """HDBSCAN (Campello et al. 2013) on the first `k_means.REDUCED` principal components of unit rows.

    It chooses the number of clusters. Rows in sparse regions are in no cluster. Above `HDBSCAN_ROWS` rows it
    clusters a sample; every other row then joins the cluster of the nearest row of the sample, unless the
    distance is larger than that of any row of that cluster to its nearest.

    Args:
        features, labels, central, seed, copies: as for `k_means_clusters`.
        min_size: fewest rows of a cluster in the sample; when None 5, or 0.5 % of the sample if that is more.

    Raises:
        UserError: features as in `UnitRows`, labels of another shape, or a `min_size` below 2.
    """
    from sklearn.cluster import HDBSCAN

    rows = as_unit_rows(features)
    labels = check_values(labels, len(rows), "labels")
    if min_size is not None:
        check_count(min_size, 2, "min_size")
    chosen = k_means.sample_rows(rows, HDBSCAN_ROWS, seed)
    sample = rows[chosen]
    pca = fit_pca(sample, k_means.REDUCED, seed)
    reduced = np.concatenate([pca.transform(x) for _, x in rows.blocks()])
    least = min(min_size or max(5, len(sample) // 200), len(sample))
    labelling = np.asarray(HDBSCAN(least, copy=True).fit_predict(reduced[chosen]))  # pyright: ignore[reportArgumentType]
    cluster = labelling if len(chosen) == len(rows) else _nearest_cluster(reduced, chosen, labelling)
    centres = np.zeros((labelling.max() + 1, rows.width), np.float32)
    np.add.at(centres, labelling[labelling >= 0], sample[labelling >= 0])
    centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    cosine = np.full(len(rows), -np.inf, np.float32)
    for block, x in rows.blocks():
        inside = np.flatnonzero(cluster[block] >= 0)
        at = cluster[block][inside]
        cosine[block.start + inside] = np.einsum("nf,nf->n", x[inside], centres[at])
    return _describe_clusters(cluster, cosine, labels, central, {}, copies)


def _nearest_cluster(reduced: np.ndarray, chosen: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """The cluster of the nearest row of a sample, int [N]; −1 where that row is too far, or in none.

    reduced: [N, R], principal components of all rows. chosen: rows of the sample. clusters: their clusters.
    """
    from sklearn.neighbors import NearestNeighbors
    from threadpoolctl import threadpool_limits

    sample = reduced[chosen]
    reach = np.zeros(clusters.max() + 2)  # of each cluster; the last is that of −1
    for c in range(clusters.max() + 1):
        members = sample[clusters == c]
        near = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(members).kneighbors(members)[0]
        reach[c] = near[:, 1].max()
    with threadpool_limits(1):  # as in `k_means`
        distance, nearest = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(sample).kneighbors(reduced)
    cluster = clusters[nearest[:, 0]]
    cluster[distance[:, 0] > reach[cluster]] = -1
    cluster[chosen] = clusters
    return cluster


def _describe_clusters(
    cluster: np.ndarray, cosine: np.ndarray, labels: np.ndarray | None, central: int, silhouette: dict,
    copies: Duplicates | None,
) -> Clusters:  # fmt: skip
    """Numbers the clusters from the largest on, and describes each.

    cosine: [N], of each row with the centre of its cluster.
    """
    count = int(cluster.max()) + 1
    size = np.bincount(cluster[cluster >= 0], minlength=count)
    by_size = np.argsort(-size, kind="stable")
    by_size = by_size[size[by_size] > 0]
    place = np.full(count + 1, -1)
    place[by_size] = np.arange(len(by_size))
    cluster, size = place[cluster], size[by_size]  # −1 reads the last, which is −1
    left_out = np.zeros(len(cluster), bool)
    if copies is not None:
        left_out[copies.others] = True
    order = np.lexsort((-cosine, left_out, cluster))
    start = np.searchsorted(cluster[order], np.arange(len(size)))
    distinct = np.maximum(np.bincount(cluster[(cluster >= 0) & ~left_out], minlength=len(size)), 1)
    shown = np.full((len(size), max(0, min(central, distinct.max(initial=0)))), -1)
    for c, first in enumerate(start):
        rows = order[first : first + min(shown.shape[1], distinct[c])]
        shown[c, : len(rows)] = rows
    classes, label = np.unique([] if labels is None else labels, return_inverse=True)
    counts = np.zeros((len(size), len(classes)), np.int64)
    if labels is not None:
        np.add.at(counts, (cluster[cluster >= 0], label[cluster >= 0]), 1)
    return Clusters(cluster, size, size / len(cluster), shown, classes, counts, silhouette)
