"""Neighbours without duplicates: of each group of copies, only the picture to keep is a neighbour."""

from __future__ import annotations

import dataclasses

import numpy as np

from simsiam_tf.curation.duplicates import Duplicates
from simsiam_tf.curation.neighbour_graph import NeighbourGraph
from simsiam_tf.curation.unit_rows import UnitRows, as_unit_rows
from simsiam_tf.features.knn import merge_nearest

COSINES = 2**24  # in memory at a time


def distinct_neighbours(
    features: np.ndarray | UnitRows, graph: NeighbourGraph, copies: Duplicates
) -> NeighbourGraph:
    """The graph whose neighbours are only the kept row of each group of duplicates.

    In the graph of all rows, a copy beside a picture makes it look typical, and hides that it is far from all
    others. Here the k-th neighbour, which is not too near, replaces each neighbour that is left out. Where
    more than half of a row's k neighbours are left out, they are searched again, exactly and among the kept
    rows. These are few rows, since each has more than k / 2 copies around it. A row that is itself left out
    gets the neighbours of the kept row of its group. Where all rows are one group, the graph stays as it is.

    Args:
        features: [N, F], may be memory-mapped.
        graph: result of `neighbour_graph` for these features.
        copies: result of `duplicates` for these features.

    Raises:
        UserError: features as in `UnitRows`.
    """
    rows = as_unit_rows(features)
    stands = copies.stands_for(len(rows))
    left_out = stands != np.arange(len(rows))
    distinct = len(rows) - int(left_out.sum())
    if distinct in (1, len(rows)):
        return graph
    skipped = left_out[graph.index]
    index = np.where(skipped, graph.index[:, -1:], graph.index)
    cosine = np.where(skipped, graph.cosine[:, -1:], graph.cosine)
    few_left = np.flatnonzero((2 * skipped.sum(axis=1) > graph.k) & ~left_out)
    step = max(1, COSINES // min(rows.step, len(rows)))
    for start in range(0, len(few_left), step):
        part = few_left[start : start + step]
        cosine[part], index[part] = _nearest_distinct(
            rows, part, left_out, min(graph.k, distinct - 1), graph.k
        )
    cosine[left_out], index[left_out] = cosine[stands[left_out]], index[stands[left_out]]
    return dataclasses.replace(graph, cosine=cosine, index=index)


def _nearest_distinct(
    rows: UnitRows, queries: np.ndarray, left_out: np.ndarray, count: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """(cosines float32 [M, k], rows int64 [M, k]) of the nearest others that are not left out.

    count: number of neighbours, at most k; the last one is repeated to make k.
    """
    best = np.full((len(queries), count), -np.inf, np.float32)
    index = np.zeros((len(queries), count), np.int64)
    x = rows[queries]
    for block, others in rows.blocks():
        cosines = x @ others.T
        cosines[:, left_out[block]] = -np.inf
        inside = np.flatnonzero((queries >= block.start) & (queries < block.stop))
        cosines[inside, queries[inside] - block.start] = -np.inf
        merge_nearest(cosines, best, index, block.start)
    place = np.minimum(np.arange(k), count - 1)
    return np.clip(best[:, place], -1, 1), index[:, place]
