"""Pictures of one set that are near-duplicates of another's, such as of a test set in a training set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from simsiam_tf.curation.duplicate_threshold import check_cosine, duplicate_cosine
from simsiam_tf.curation.neighbour_graph import K, NeighbourGraph, cross_neighbours
from simsiam_tf.curation.unit_rows import UnitRows, as_unit_rows, check_values
from simsiam_tf.runtime.display_text import counted
from simsiam_tf.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Leaks:
    """L rows of one set that have near-duplicates in another; exact ones first, then by falling cosine.

    threshold: least cosine of near-duplicates. rows: int64 [L], rows of the one set. source: int64 [L], for
    each the nearest row of the other set, or one of the same pixels. cosine: float32 [L], of both. exact:
    bool [L], whether the digests are equal.
    """

    threshold: float
    rows: np.ndarray
    source: np.ndarray
    cosine: np.ndarray
    exact: np.ndarray


def leaks(
    features: np.ndarray | UnitRows,
    against: np.ndarray | UnitRows,
    graph: NeighbourGraph | None = None,
    cosine: float | None = None,
    digests: Sequence[str] | np.ndarray | None = None,
    against_digests: Sequence[str] | np.ndarray | None = None,
) -> Leaks:
    """Rows of `features` (a test set) that are duplicates of rows of `against` (a training set).

    Args:
        features, against: [M, F] and [N, F], may be memory-mapped.
        graph: of `cross_neighbours(against, features)`; made when None.
        cosine: least cosine of near-duplicates, in (0, 1]; by `duplicate_cosine` when None.
        digests, against_digests: [M] and [N], digests of the decoded pixels: rows of equal digests are
            duplicates, whatever their features. Both or none.

    Raises:
        UserError: features as in `UnitRows`, sets of different widths, a cosine outside (0, 1], only one of
            the two arrays of digests, or a graph or an array of other rows.
    """
    cosine = check_cosine(cosine)
    queries, bank = as_unit_rows(features), as_unit_rows(against, "against")
    digests = check_values(digests, len(queries), "digests")
    against_digests = check_values(against_digests, len(bank), "against_digests")
    if (digests is None) != (against_digests is None):
        raise UserError("`digests`, `against_digests`: one is missing. Pass both or none.")
    if graph is None:
        graph = cross_neighbours(bank, queries, K if cosine is None else 1)
    elif len(graph.index) != len(queries):
        raise UserError(f"`graph`: has {counted(len(graph.index), 'row')}, the features have {len(queries)}.")
    threshold = duplicate_cosine(graph.cosine) if cosine is None else cosine
    source, exact = graph.index[:, 0].copy(), np.zeros(len(queries), bool)
    if digests is not None and against_digests is not None:
        unique, first = np.unique(against_digests, return_index=True)
        place = np.minimum(np.searchsorted(unique, digests), len(unique) - 1)
        exact = unique[place] == digests
        source[exact] = first[place[exact]]
    similarity = graph.cosine[:, 0].copy()
    for start in range(0, len(queries), queries.step):
        rows = start + np.flatnonzero(exact[start : start + queries.step])
        similarity[rows] = np.einsum("nf,nf->n", queries[rows], bank[source[rows]])
    rows = np.flatnonzero(exact | (graph.cosine[:, 0] >= threshold))
    rows = rows[np.lexsort((rows, -similarity[rows], ~exact[rows]))]
    return Leaks(threshold, rows, source[rows], similarity[rows], exact[rows])
