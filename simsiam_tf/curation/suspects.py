"""Finds labels that are probably wrong, by confident learning (Northcutt, Jiang and Chuang 2021)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from simsiam_tf.curation.neighbour_graph import NeighbourGraph, ensure_graph
from simsiam_tf.curation.unit_rows import UnitRows, check_values
from simsiam_tf.runtime.errors import UserError

TEMPERATURE = 0.1  # of the votes, as in kNN accuracy (Wu et al. 2018)
SLACK = 1e-6  # a probability reaches the threshold of a class if it is at most this much below it
LABELS_DO_NOT_FIT = (
    "so many that the labels, such as folders by year, seem not to follow what the pictures show"
)
BLOCK = 2**22  # probabilities that are compared at a time

Probabilities = Any  # float64 [N, L], a NumPy array or a sparse.csr_array


@dataclasses.dataclass(frozen=True)
class Suspects:
    """Rows whose label is probably wrong, the least likely labels first.

    rows: int64 [S]. given, looks_like: [S], the given label and the most probable one. quality: float64 [N],
    the probability of every row's given label ("self-confidence"); the lower, the more suspicious. joint:
    int64 [L, L], estimated number of rows by given label (first index) and true one. classes: [L], sorted.
    """

    rows: np.ndarray
    given: np.ndarray
    looks_like: np.ndarray
    quality: np.ndarray
    joint: np.ndarray
    classes: np.ndarray

    @property
    def labels_fit(self) -> bool:
        """Whether the labels follow the features at all: fewer than a third of them look wrong."""
        return 3 * len(self.rows) < len(self.quality)


def suspects(
    features: np.ndarray | UnitRows | None,
    labels: Sequence | np.ndarray,
    graph: NeighbourGraph | None = None,
    probabilities: np.ndarray | None = None,
) -> Suspects:
    """Rows whose label confident learning prunes ("by noise rate", as cleanlab's `find_label_issues`).

    Args:
        features: [N, F]; None where `graph` or `probabilities` is given.
        labels: [N], numbers or text, at least two different ones.
        graph: result of `neighbour_graph`, whose rows vote (`vote_probabilities`); made when None.
        probabilities: [N, L], the probability of each class, in sorted order, by a model that was not trained
            on the row (cross-validation), such as a probe; the neighbours' votes when None.

    Raises:
        UserError: fewer than two different labels; features as in `UnitRows`; a graph of other rows; or
            probabilities of another shape, or that are no distributions.
    """
    count = len(labels)
    if probabilities is None:
        graph = ensure_graph(features, graph)
        count = len(graph.index)
    check_values(labels, count, "labels")
    classes, label = np.unique(np.asarray(labels), return_inverse=True)
    if len(classes) < 2:
        raise UserError("`labels`: are all the same. Wrong ones show only among at least two classes.")
    if graph is not None and probabilities is None:
        p = vote_probabilities(graph, label, len(classes))
    else:
        p = _check_probabilities(probabilities, (count, len(classes)))
    joint = confident_joint(label, p)
    quality, likeliest = _given_and_likeliest(label, p)
    rows = np.flatnonzero(_prune(label, p, joint, quality, likeliest))
    rows = rows[np.argsort(quality[rows], kind="stable")]
    return Suspects(rows, classes[label[rows]], classes[likeliest[rows]], quality, joint, classes)


def vote_probabilities(
    graph: NeighbourGraph, label: np.ndarray, classes: int, temperature: float = TEMPERATURE
) -> sparse.csr_array:
    """Leave-one-out probabilities of each class: float64 [N, classes], sparse, at most k of a row not 0.

    Each of the k nearest others by cosine s votes for its label with weight exp(s / temperature).

    label: int [N], in [0, classes).
    """
    weight = np.exp((graph.cosine - graph.cosine[:, :1]).astype(np.float64) / temperature)
    weight /= weight.sum(axis=1, keepdims=True)
    start = np.arange(len(weight) + 1) * weight.shape[1]
    votes = weight.ravel(), label[graph.index].ravel(), start
    p = sparse.csr_array(votes, shape=(len(weight), classes))
    p.sum_duplicates()
    return p


def _blocks(p: Probabilities) -> Iterator[tuple[slice, np.ndarray]]:
    """(rows, their probabilities [n, L]) of all rows, about `BLOCK` numbers at a time."""
    step = max(1, BLOCK // p.shape[1])
    for start in range(0, p.shape[0], step):
        rows = slice(start, start + step)
        yield rows, p[rows] if isinstance(p, np.ndarray) else p[rows].toarray()


def _given_and_likeliest(label: np.ndarray, p: Probabilities) -> tuple[np.ndarray, np.ndarray]:
    """(the probability of each row's label, float64 [N]; its most probable class, int64 [N])."""
    given, likeliest = np.empty(len(label)), np.empty(len(label), np.int64)
    for rows, block in _blocks(p):
        given[rows] = block[np.arange(len(block)), label[rows]]
        likeliest[rows] = block.argmax(axis=1)
    return given, likeliest


def _check_probabilities(probabilities: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray:
    p = np.asarray(probabilities, np.float64)
    if p.shape != shape:
        raise UserError(
            f"`probabilities`: have shape {p.shape}. Pass {list(shape)}: a row for each label, a column for "
            "each class that occurs."
        )
    sums = p.sum(axis=1)
    if not (p >= 0).all() or not np.allclose(sums, 1, atol=1e-3):  # a NaN fails, too
        row = int((~((p >= 0).all(axis=1) & (np.abs(sums - 1) < 1e-3))).argmax())
        raise UserError(f"`probabilities`: row {row} is no distribution. Pass numbers in [0, 1] of sum 1.")
    return p


def confident_joint(label: np.ndarray, p: Probabilities) -> np.ndarray:
    """Estimated numbers of rows by given and true label, int64 [L, L] (Eq. 1, 2 and 3 of the paper).

    A row counts as truly of class j where p_j is at least t_j, the mean of p_j over the rows labelled j; of
    several such classes the most probable one counts. Each given label's counts are then scaled to its number
    of rows.
    """
    count = p.shape[1]
    number = np.bincount(label, minlength=count)
    given, true = _given_and_likeliest(label, p)
    threshold = np.array([given[label == j].mean() for j in range(count)])
    confident = np.empty(len(label), bool)
    for rows, block in _blocks(p):
        reached = block >= np.maximum(threshold, 2 * SLACK) - SLACK
        # NOTE: of several reached classes the paper takes the likeliest of them, cleanlab of all classes.
        true[rows] = np.where(reached.sum(axis=1) > 1, true[rows], reached.argmax(axis=1))
        confident[rows] = reached.any(axis=1)
    joint = np.zeros((count, count), order="F")  # cleanlab's order of sums, which decides ties in `_rounded`
    np.add.at(joint, (label[confident], true[confident]), 1)
    np.fill_diagonal(joint, np.maximum(joint.diagonal(), 1))
    joint = (joint.T / joint.sum(axis=1) * number).T
    return _rounded(joint / joint.sum() * number.sum())


def _rounded(joint: np.ndarray) -> np.ndarray:
    """Rounds to whole numbers; where a row's sum would change, the numbers with the largest errors change."""
    whole = joint.round()
    for exact, row in zip(joint, whole, strict=True):
        surplus = int(row.sum() - exact.sum().round())
        order = np.argsort(exact - row)  # the most rounded up first
        if surplus > 0:
            row[order[:surplus]] -= 1
        elif surplus < 0:
            row[order[surplus:]] += 1
    return whole.astype(np.int64)


def _prune(
    label: np.ndarray,
    p: Probabilities,
    joint: np.ndarray,
    given: np.ndarray,
    likeliest: np.ndarray,
) -> np.ndarray:
    """Whether to prune each row, bool [N]: "prune by noise rate" of the paper (Sec. 3.2, method 4).

    For each pair of a given label i and another j, the joint[i, j] rows of the largest p_j − p_i; but none
    whose most probable label is the given one, and not all rows of a label.

    given, likeliest: result of `_given_and_likeliest`.
    """
    pruned = np.zeros(len(label), bool)
    for i, counts in enumerate(joint):
        rows = np.flatnonzero(label == i)
        if len(rows) < 2:
            continue
        counts = counts.astype(float)
        if counts[i] < 1:  # keeps one row, which lessens the other counts alike
            others = max(np.count_nonzero(counts) - 1, 1)
            counts = np.maximum(counts - 1 / others, 0).astype(np.int64)
        columns = sparse.csc_array(p[rows])
        for j in np.flatnonzero(counts):
            if j != i:
                entries = slice(columns.indptr[j], columns.indptr[j + 1])
                margin = -given[rows]
                margin[columns.indices[entries]] += columns.data[entries]
                pruned[rows[np.argsort(-margin, kind="stable")[: int(counts[j])]]] = True
    return pruned & (likeliest != label)
