"""Pictures that are far from all others."""

from __future__ import annotations

import dataclasses

import numpy as np

from simsiam_tf.curation.neighbour_graph import NeighbourGraph, graph_of
from simsiam_tf.curation.unit_rows import UnitRows


@dataclasses.dataclass(frozen=True)
class Outliers:
    """How far each row is from the others.

    score: float32 [N], mean cosine of the k nearest others, in [-1, 1]; the lower, the more of an outlier.
    rank: int64 [N], 0 for the lowest score. rows: int64 [N], the rows by rank.
    """

    score: np.ndarray
    rank: np.ndarray
    rows: np.ndarray


def outliers(features: np.ndarray | UnitRows | None = None, graph: NeighbourGraph | None = None) -> Outliers:
    """Ranks rows by the mean cosine of their nearest others (kNN outlier score, Ramaswamy et al. 2000).

    Args:
        features: [N, F]; not needed with `graph`.
        graph: of `neighbour_graph`; made from the features when None. It decides k.
    """
    score = graph_of(features, graph).cosine.mean(axis=1, dtype=np.float64).astype(np.float32)
    rows = np.argsort(score, kind="stable")
    rank = np.empty_like(rows)
    rank[rows] = np.arange(len(rows))
    return Outliers(score, rank, rows)
