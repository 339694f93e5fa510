"""Exact and near-duplicates, in groups around the picture to keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from simsiam_tf.curation.duplicate_threshold import check_cosine, duplicate_cosine
from simsiam_tf.curation.neighbour_graph import NeighbourGraph, ensure_graph
from simsiam_tf.curation.unit_rows import UnitRows, as_unit_rows, check_values

LOSSLESS = ("PNG", "TIFF", "BMP", "NPY")  # as `data.images.formats` names them
FORMAT_PLACES = {**dict.fromkeys(LOSSLESS, 0), "GIF": 2}  # in the order of keeping; 1 for all others


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """G groups of near-duplicates, each of one row to keep and of others, D others in all.

    Each of the others has a cosine of at least `threshold` with the kept row of its group, or equal pixels.
    No two kept rows have such a cosine (as far as the search is exact). So a chain of small changes does not
    become one group.

    threshold: least cosine of near-duplicates. kept: int64 [G], the row to keep of each group, in ascending
    order. others: int64 [D], the rows to leave out, group by group. group: int64 [D], the group of each of
    the others, in [0, G). cosine: float32 [D], with the kept row. exact: bool [D], same digest as that row.
    """

    threshold: float
    kept: np.ndarray
    others: np.ndarray
    group: np.ndarray
    cosine: np.ndarray
    exact: np.ndarray

    def groups(self) -> list[np.ndarray]:
        """The rows of each group, the kept one first."""
        if not len(self.kept):
            return []
        parts = np.split(self.others, np.searchsorted(self.group, np.arange(1, len(self.kept))))
        return [np.append(kept, others) for kept, others in zip(self.kept, parts, strict=True)]

    def stands_for(self, rows: int) -> np.ndarray:
        """The kept row of each row's group, the row itself where it is in none: int64 [rows]."""
        stands = np.arange(rows)
        stands[self.others] = self.kept[self.group]
        return stands


def duplicates(
    features: np.ndarray | UnitRows,
    graph: NeighbourGraph | None = None,
    cosine: float | None = None,
    digests: Sequence[str] | np.ndarray | None = None,
    area: Sequence[float] | np.ndarray | None = None,
    sharpness: Sequence[float] | np.ndarray | None = None,
    names: Sequence[str] | np.ndarray | None = None,
    formats: Sequence[str] | np.ndarray | None = None,
    file_sizes: Sequence[float] | np.ndarray | None = None,
) -> Duplicates:
    """Groups of pictures of equal pixels or of near features.

    Rows are gone through from the best to the worst. A row that is near to no kept row is kept, and takes the
    later rows that are near to it.

    Args:
        features: [N, F], may be memory-mapped.
        graph: result of `neighbour_graph`; made from the features when None.
        cosine: least cosine of near-duplicates, in (0, 1]; by `duplicate_cosine` when None. Where it is so
            low that most rows have all their k neighbours above it, the time grows as N².
        digests: [N], digests of the decoded pixels: rows of equal digests are exact duplicates, whatever
            their features.
        area, formats, file_sizes, sharpness, names: [N], each None where it is unknown. They decide in this
            order which row of a group is kept: the largest area; a lossless format (`LOSSLESS`) before
            others, and a GIF, which has 256 colours, last; the largest file; the highest sharpness, which
            comes late since artefacts of a JPEG raise it; the name with the fewest folders, the shortest, the
            alphabetically first; the first row.

    Raises:
        UserError: features as in `UnitRows`, a cosine outside (0, 1], or a graph or an array of other rows.
    """
    cosine = check_cosine(cosine)
    rows = as_unit_rows(features)
    keys = {
        "area": area, "formats": formats, "file_sizes": file_sizes, "sharpness": sharpness, "names": names,
    }  # fmt: skip
    place = _places_by_quality(len(rows), keys)  # 0: kept before all others
    exact = check_values(digests, len(rows), "digests")
    graph = ensure_graph(rows, graph)
    threshold = duplicate_cosine(graph.cosine) if cosine is None else cosine
    # Equal pixels are one picture, for which the best of its rows stands.
    stands = np.arange(len(rows)) if exact is None else _first_of_equals(exact, place)
    taken_by = _greedy(rows, graph, threshold, place, stands)[stands]
    others = np.flatnonzero(taken_by != np.arange(len(rows)))
    others = others[np.argsort(taken_by[others], kind="stable")]
    kept, group = np.unique(taken_by[others], return_inverse=True)
    return Duplicates(
        threshold, kept, others, group, rows.cosines(others, taken_by[others]),
        stands[others] == stands[taken_by[others]] if exact is not None else np.zeros(len(others), bool),
    )  # fmt: skip


def _places_by_quality(rows: int, values: dict[str, Any]) -> np.ndarray:
    """The place of each row in the order of keeping, int [N]: 0 is kept before all others.

    values: arguments of `duplicates`, the decisive one first.
    """
    keys = []
    for name, argument in values.items():
        if (column := check_values(argument, rows, name)) is None:
            continue
        if name == "names":
            texts = [str(text) for text in column]
            keys += [[text.count("/") for text in texts], [len(text) for text in texts]]
            keys.append(np.unique(column, return_inverse=True)[1])
        elif name == "formats":
            keys.append([FORMAT_PLACES.get(str(text), 1) for text in column])
        else:
            keys.append(-column.astype(float))
    order = np.lexsort([np.arange(rows), *reversed(keys)])
    place = np.empty(rows, np.int64)
    place[order] = np.arange(rows)
    return place


def _first_of_equals(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """For each row the row of an equal value whose place is the lowest: int [N]."""
    _, value = np.unique(values, return_inverse=True)
    order = np.argsort(place)
    _, first = np.unique(value[order], return_index=True)
    return order[first][value]


def _greedy(
    rows: UnitRows, graph: NeighbourGraph, threshold: float, place: np.ndarray, stands: np.ndarray
) -> np.ndarray:
    """The kept row of each row's group, int [N]; the row itself where it is kept.

    stands: for each row, the row with equal pixels that stands for it. The result is defined only for rows
        that stand for themselves.
    """
    start, neighbour = _edges(graph, threshold, stands)
    taken_by = np.arange(len(rows))
    # Two near rows can miss each other in the graph only where both have k others that are as near.
    full = np.flatnonzero((stands == taken_by) & (graph.cosine[:, -1] >= threshold))
    full_row = dict(zip(full.tolist(), range(len(full)), strict=True))
    full_features = rows[full]
    candidates = np.union1d(full, neighbour)
    for row in candidates[np.argsort(place[candidates])].tolist():
        if taken_by[row] != row:
            continue
        near = neighbour[start[row] : start[row + 1]]
        if row in full_row:
            near = np.append(near, full[full_features @ full_features[full_row[row]] >= threshold])
        near = near[(taken_by[near] == near) & (place[near] > place[row])]
        taken_by[near] = row
    return taken_by


def _edges(graph: NeighbourGraph, threshold: float, stands: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of near rows, in both directions: row i has neighbour[start[i]:start[i + 1]]."""
    row, column = np.nonzero(graph.cosine >= threshold)
    a, b = stands[row], stands[graph.index[row, column]]
    a, b = a[a != b], b[a != b]
    a, b = np.append(a, b), np.append(b, a)
    order = np.argsort(a, kind="stable")
    return np.searchsorted(a[order], np.arange(len(stands) + 1)), b[order]
