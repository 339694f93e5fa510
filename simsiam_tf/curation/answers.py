"""All answers about a set of pictures."""

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

    neighbours: k of the graph. cosine: least cosine of near-duplicates; None: by the distribution of all.
    clusters: their number; None: by silhouette. hdbscan: whether HDBSCAN clusters, not k-means. subset,
    method: how many pictures to label first, and how they are chosen. have: rows with labels already.
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
    """What the functions of the same names return; None where the set does not ask for it.

    suspects: its rows, `quality` included, are of `labelled`. labelled: rows of the pictures with a label.
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
    """Answers all questions.

    scan: of the pictures; without it, duplicates are those of the features alone. against: another set, in
    which near-duplicates of the pictures are sought.
    """
    rows, others = pictures.rows, None if against is None else against.rows
    graph = neighbour_graph(rows, question.neighbours)
    quality = {} if scan is None else {
        "digests": scan.digests, "area": scan.statistics.area, "sharpness": scan.statistics.sharpness,
        "formats": scan.formats, "file_sizes": scan.file_sizes,
    }  # fmt: skip
    found = duplicates(rows, graph, question.cosine, names=pictures.names, **quality)
    distinct = distinct_neighbours(rows, graph, found)
    options: dict[str, Any] = {"seed": question.seed, "copies": found}
    if question.hdbscan:
        with progress.announced("clustering by density (HDBSCAN)"):
            clusters = hdbscan_clusters(rows, labels=pictures.labels, **options)
    else:
        counts = COUNTS if question.clusters is None else question.clusters
        clusters = k_means_clusters(rows, counts, pictures.labels, **options)
    chosen = None
    if question.subset:
        chosen = subset(rows, question.subset, question.have, question.method, distinct, **options)
    leaked = None
    if others is not None:
        both = (scan.digests, against_scan.digests) if scan and against_scan else (None, None)
        leaked = leaks(rows, others, None, found.threshold, *both)
    strange = outliers(rows, distinct)
    return Answers(graph, found, strange, clusters, chosen, *_suspects(pictures, graph), leaked)


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
