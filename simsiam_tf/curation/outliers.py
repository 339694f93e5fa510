"""Pictures that are far from all others."""

from __future__ import annotations

import dataclasses

import numpy as np

from simsiam_tf.curation.neighbour_graph import NeighbourGraph, graph_of
from simsiam_tf.curation.unit_rows import UnitRows, as_unit_rows


@dataclasses.dataclass(frozen=True)
class Outliers:
    """How far each row is from the others.

    score: float64 [N], mean distance to the k nearest others; the higher, the more of an outlier. rank: int64
    [N], 0 for the highest score. rows: int64 [N], the rows by rank.
    """

    score: np.ndarray
    rank: np.ndarray
    rows: np.ndarray


def outliers(features: np.ndarray | UnitRows, graph: NeighbourGraph | None = None) -> Outliers:
    """Ranks rows by the mean distance to their nearest others (Angiulli and Pizzuti, PKDD 2002).

    The nearest are those by cosine, the distances Euclidean and of the features as they are. Strangers stand
    out by the length of their features more than by the direction, above all where features are whitened:
    then the length is about the Mahalanobis distance from the mean (measured in docs/curation.md). Of
    features of length 1, the order is about that by cosine.

    Args:
        features: [N, F], may be memory-mapped.
        graph: of `neighbour_graph`, or of `distinct_neighbours`, so that no copy hides an outlier; the former
            is made when None. It decides k.
    """
    unit = as_unit_rows(features)
    graph = graph_of(unit, graph)
    score = np.empty(len(unit))
    largest = unit.lengths.max()  # so that no square leaves float64's range
    for start in range(0, len(unit), unit.step):
        block = slice(start, start + unit.step)
        own, others = unit.lengths[block] / largest, unit.lengths[graph.index[block], 0] / largest
        squares = own**2 + others**2 - 2 * own * others * graph.cosine[block]
        score[block] = np.sqrt(np.maximum(squares, 0)).mean(axis=1) * largest
    rows = np.argsort(-score, kind="stable")
    rank = np.empty_like(rows)
    rank[rows] = np.arange(len(rows))
    return Outliers(score, rank, rows)
