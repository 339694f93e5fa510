"""Neighbours with one picture of each group of duplicates, so that copies do not pass for like pictures."""

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
    """The graph with one row of each group of duplicates, the kept one.

    In the graph of all rows, a copy beside a picture makes it look typical, and hides that it is far from all
    others. Here the k-th neighbour takes the place of each neighbour that is left out; no row that is missing
    is nearer. Where more than half of the k are left out, the kept rows are searched exactly: such a row has
    more than k / 2 copies around it, so that they are few. A row that is left out has the neighbours of the
    kept row of its group. Where all rows are one group, the graph stays as it is.

    Args:
        features: [N, F], may be memory-mapped.
        graph: of `neighbour_graph`. copies: of `duplicates`. Both of these features.
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
    anew = np.flatnonzero((2 * skipped.sum(axis=1) > graph.k) & ~left_out)
    step = max(1, COSINES // min(rows.step, len(rows)))
    for start in range(0, len(anew), step):
        part = anew[start : start + step]
        cosine[part], index[part] = _nearest_distinct(
            rows, part, left_out, min(graph.k, distinct - 1), graph.k
        )
    cosine[left_out], index[left_out] = cosine[stands[left_out]], index[stands[left_out]]
    return dataclasses.replace(graph, cosine=cosine, index=index)


def _nearest_distinct(
    rows: UnitRows, queries: np.ndarray, left_out: np.ndarray, found: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """(cosines float32 [M, k], rows int64 [M, k]) of the nearest that are not left out; none is the query.

    found: number of neighbours, at most k; the last one fills the other places.
    """
    best, index = (
        np.full((len(queries), found), -np.inf, np.float32),
        np.zeros((len(queries), found), np.int64),
    )
    x = rows[queries]
    for block, others in rows.blocks():
        cosines = x @ others.T
        cosines[:, left_out[block]] = -np.inf
        inside = np.flatnonzero((queries >= block.start) & (queries < block.stop))
        cosines[inside, queries[inside] - block.start] = -np.inf
        merge_nearest(cosines, best, index, block.start)
    place = np.minimum(np.arange(k), found - 1)
    return np.clip(best[:, place], -1, 1), index[:, place]
