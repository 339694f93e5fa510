"""Exact nearest neighbours by cosine in NumPy, a block of both sets at a time."""

from __future__ import annotations

import itertools

import numpy as np

from simsiam_tf.curation.unit_rows import UnitRows
from simsiam_tf.runtime import progress

BANK_BLOCK, QUERY_BLOCK = 8192, 2048  # rows; their cosines take 64 MiB
FEW = 4  # · k candidates of a query in a block are sorted as they are; of more, the k best are chosen first


def nearest_rows(
    bank: UnitRows, queries: UnitRows, k: int, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows of the bank, the nearest first; of equal cosines, the lowest row first.

    Args:
        k: number of neighbours, at most len(bank), and one less with `own`.
        own: int [M], the row of the bank that each query is, and which is left out; None where the queries
            are not from the bank.

    Returns:
        (cosines float32 [M, k], rows of the bank int64 [M, k]).
    """
    best = np.full((len(queries), k), -np.inf, np.float32)
    index = np.zeros((len(queries), k), np.int64)
    bank_block = max(BANK_BLOCK, k)
    buffer = np.empty(min(QUERY_BLOCK, len(queries)) * min(bank_block, len(bank)), np.float32)
    starts = range(0, len(bank), bank_block), range(0, len(queries), QUERY_BLOCK)
    candidates, held = np.empty((0, 0)), -1
    total = len(starts[0]) * len(starts[1])
    for start, at in progress.bar(
        itertools.product(*starts), "neighbours", total=total, unit="block", leave=False
    ):
        if held != start:
            candidates, held = bank[start : start + bank_block].T, start
        rows = slice(at, min(at + QUERY_BLOCK, len(queries)))
        shape = (rows.stop - rows.start, candidates.shape[1])
        cosines = np.matmul(queries[rows], candidates, out=buffer[: shape[0] * shape[1]].reshape(shape))
        if own is not None:
            column = own[rows] - start
            inside = np.flatnonzero((column >= 0) & (column < shape[1]))
            cosines[inside, column[inside]] = -np.inf
        _merge(cosines, start, best[rows], index[rows])
    return best, index


def _merge(cosines: np.ndarray, start: int, best: np.ndarray, index: np.ndarray) -> None:
    """Replaces `best` and `index` [n, k] by the k best of them and of `cosines` [n, m].

    start: row of the bank in the first column of `cosines`.
    """
    n, k = best.shape
    better = cosines > best[:, -1:]  # of equals, the earlier rows stay
    counts = np.count_nonzero(better, axis=1)
    many = np.flatnonzero(counts > FEW * k)
    if len(many):
        better[many] = _best(cosines[many], k)
    found = np.flatnonzero(better)
    query, column = np.divmod(found, cosines.shape[1])
    query = np.concatenate([np.repeat(np.arange(n), k), query])
    value = np.concatenate([best.ravel(), cosines.ravel()[found]])
    row = np.concatenate([index.ravel(), column + start])
    order = np.lexsort((row, -value, query))
    first = np.searchsorted(query[order], np.arange(n))
    order = order[first[:, None] + np.arange(k)]
    best[:], index[:] = value[order], row[order]


def _best(cosines: np.ndarray, k: int) -> np.ndarray:
    """A mask of the k largest of each row of [n, m]; of equals, the first."""
    if k >= cosines.shape[1]:
        return np.ones(cosines.shape, bool)
    least = np.partition(cosines, -k, axis=1)[:, -k, None]
    above, equal = cosines > least, cosines == least
    room = k - np.count_nonzero(above, axis=1)
    tied = np.flatnonzero(np.count_nonzero(equal, axis=1) > room)
    equal[tied] &= np.cumsum(equal[tied], axis=1, dtype=np.int32) <= room[tied, None]
    return above | equal


def without_own(cosine: np.ndarray, index: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """k + 1 neighbours of each query without the query itself, row own[i] of the bank: two arrays [M, k]."""
    itself = index == own[:, None]
    # Where copies pushed a row out of its own neighbours, the last one is dropped instead.
    itself[~itself.any(axis=1), -1] = True
    shape = len(index), index.shape[1] - 1
    return cosine[~itself].reshape(shape), index[~itself].reshape(shape)
