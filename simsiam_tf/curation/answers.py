"""Computes all answers about a set of pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from simsiam_tf.curation.clusters import COUNTS, Clusters, hdbscan_clusters, k_means_clusters
from simsiam_tf.curation.distinct_neighbours import distinct_neighbours
from simsiam_tf.curation.duplicates import Duplicates, duplicates
from simsiam_tf.curation.leaks import Leaks, leaks
from simsiam_tf.curation.neighbour_graph import K, NeighbourGraph, neighbour_graph
from simsiam_tf.curation.outliers import Outliers, outliers
from simsiam_tf.curation.picture_scan import Scan
from simsiam_tf.curation.picture_set import PictureSet
from simsiam_tf.curation.subset import Subset, subset
from simsiam_tf.curation.suspects import Suspects, suspects
from simsiam_tf.runtime import progress


@dataclasses.dataclass(frozen=True)
class Question:
    """Options of `answer`.

    neighbours: k of the graph. cosine: least cosine of near-duplicates; None: by `duplicate_cosine`.
    clusters: number of clusters; None: by silhouette. hdbscan: whether to cluster by HDBSCAN, not k-means.
    subset: number of pictures to label first. method: how they are chosen, as for `subset`. have: rows of the
    pictures that are labelled already.
    """

    neighbours: int = K
    cosine: float | None = None
    clusters: int | None = None
    hdbscan: bool = False
    subset: int = 0
    method: str = "auto"
    have: Sequence[int] | np.ndarray = ()
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Answers:
    """The results of the functions of the same names; None for answers that were not asked for.

    labelled: rows of the pictures with a label. suspects: the suspects among these; its rows are indices into
    `labelled`.
    """

    graph: NeighbourGraph
    duplicates: Duplicates
    outliers: Outliers
    clusters: Clusters
    subset: Subset | None = None
    suspects: Suspects | None = None
    labelled: np.ndarray | None = None
    leaks: Leaks | None = None


def answer(
    pictures: PictureSet, question: Question, scan: Scan | None = None, against: PictureSet | None = None,
    against_scan: Scan | None = None,
) -> Answers:  # fmt: skip
    """Computes all answers.

    scan: scan of the pictures; without it, duplicates are found by features alone. against, against_scan:
    another set, in which near-duplicates of the pictures are sought, and its scan.
    """
    rows, others = pictures.rows, None if against is None else against.rows
    graph = neighbour_graph(rows, question.neighbours)
    quality = {} if scan is None else {
        "digests": scan.digests, "area": scan.statistics.area, "sharpness": scan.statistics.sharpness,
        "formats": scan.formats, "file_sizes": scan.file_sizes,
    }  # fmt: skip
    copies = duplicates(rows, graph, question.cosine, names=pictures.names, **quality)
    distinct = distinct_neighbours(rows, graph, copies)
    options: dict[str, Any] = {"seed": question.seed, "copies": copies}
    if question.hdbscan:
        with progress.announced("clustering by density (HDBSCAN)"):
            clusters = hdbscan_clusters(rows, labels=pictures.labels, **options)
    else:
        counts = COUNTS if question.clusters is None else question.clusters
        clusters = k_means_clusters(rows, counts, pictures.labels, **options)
    to_label = None
    if question.subset:
        to_label = subset(rows, question.subset, question.have, question.method, distinct, **options)
    leaked = None
    if others is not None:
        digests = (scan.digests, against_scan.digests) if scan and against_scan else (None, None)
        leaked = leaks(rows, others, None, copies.threshold, *digests)
    ranks = outliers(rows, distinct)
    return Answers(graph, copies, ranks, clusters, to_label, *_suspects(pictures, graph), leaked)


def _suspects(pictures: PictureSet, graph: NeighbourGraph) -> tuple[Suspects | None, np.ndarray | None]:
    """(suspects among the labelled pictures, their rows); None where fewer than two classes are labelled."""
    if pictures.labels is None:
        return None, None
    labelled = np.flatnonzero(pictures.labels != "")
    labels = pictures.labels[labelled].astype(str)
    if len(np.unique(labels)) < 2:
        return None, None
    if len(labelled) < len(pictures):
        graph = neighbour_graph(pictures.features[labelled], graph.index.shape[1])
    return suspects(None, labels, graph), labelled
