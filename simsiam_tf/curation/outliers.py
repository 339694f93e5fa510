"""Pictures that are far from all others."""

from __future__ import annotations

import dataclasses

import numpy as np

from simsiam_tf.curation.neighbour_graph import NeighbourGraph, ensure_graph
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

    The nearest others are those by cosine. Distances to them are Euclidean, between features of their own
    lengths: outliers stand out by length more than by direction, above all where features are whitened and
    their length is about the Mahalanobis distance from the mean (measured in docs/curation.md). For features
    of length 1, the order is about that by cosine.

    Args:
        features: [N, F], may be memory-mapped.
        graph: result of `neighbour_graph`, which is made when None, or of `distinct_neighbours`, in which no
            copy hides an outlier. The graph decides k.

    Raises:
        UserError: features as in `UnitRows`, or a graph of other rows.
    """
    unit = as_unit_rows(features)
    graph = ensure_graph(unit, graph)
    score = np.empty(len(unit))
    largest = unit.lengths.max()  # so that no square leaves float64's range
    for start in range(0, len(unit), unit.step):
        block = slice(start, start + unit.step)
        length, others = unit.lengths[block] / largest, unit.lengths[graph.index[block], 0] / largest
        squares = length**2 + others**2 - 2 * length * others * graph.cosine[block]
        score[block] = np.sqrt(np.maximum(squares, 0)).mean(axis=1) * largest
    rows = np.argsort(-score, kind="stable")
    rank = np.empty_like(rows)
    rank[rows] = np.arange(len(rows))
    return Outliers(score, rank, rows)
