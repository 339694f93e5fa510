"""Nearest neighbours by cosine, in blocks, and classification by their votes."""

from __future__ import annotations

import concurrent.futures
import sys
from collections.abc import Sequence

import numpy as np

from simsiam_tf.runtime import cores, progress

BLOCK = 2**24  # numbers of the bank, and cosines, in memory at a time
CHUNK = 2**19  # cosines that are compared at a time, few enough for a CPU's cache
ROUNDING = 1e-7  # rounding error of a cosine of rows [F] of length 1, divided by √F
TINY = 1e-12  # rows whose squared length is below it, or not finite, are scaled before they are normalised


def knn_accuracy(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray,
    query_labels: np.ndarray,
    ks: Sequence[int] = (20, 200),
    temperature: float = 0.1,
    block: int = 1000,
    query_rows: np.ndarray | None = None,
) -> dict[int, float]:
    """kNN accuracy of the queries: k → share in [0, 1].

    Each of the k nearest by cosine s votes for its label with weight exp(s / temperature) (Wu et al. 2018).

    Args:
        bank, bank_labels: [N, F] features with int labels [N].
        queries, query_labels: [M, F] features with int labels [M].
        ks: numbers of neighbours; those above N are cut to N.
        temperature: temperature of the votes, > 0.
        block: queries at a time.
        query_rows: int [M], where the queries are rows of the bank: the row of each. No row votes for itself
            (leave-one-out).
    """
    if query_rows is None:
        similarity, index = nearest(bank, queries, max(ks), block)
    else:
        similarity, index = nearest_others(bank, queries, query_rows, max(ks), block)
    return vote_accuracy(similarity, np.asarray(bank_labels)[index], query_labels, ks, temperature, block)


def vote_accuracy(
    similarity: np.ndarray,
    labels: np.ndarray,
    query_labels: np.ndarray,
    ks: Sequence[int],
    temperature: float = 0.1,
    block: int = 1000,
) -> dict[int, float]:
    """Accuracy of M queries by the votes of their neighbours: k → share in [0, 1]; see `knn_accuracy`.

    Args:
        similarity, labels: [M, k], cosine and label of each neighbour, the nearest first. A cosine of −inf
            has no vote; the first is finite.
        query_labels: int [M].
    """
    classes = int(max(np.max(labels), np.max(query_labels))) + 1
    # Only ratios of weights matter: the nearest neighbour gets weight 1, so that nothing overflows.
    weight, right = np.exp((similarity - similarity[:, :1]) / temperature), dict.fromkeys(ks, 0)
    for start in range(0, len(labels), block):
        rows = slice(start, start + block)
        truth = query_labels[rows]
        for k in ks:
            votes = np.zeros((len(truth), classes))
            np.add.at(votes, (np.arange(len(truth))[:, None], labels[rows, :k]), weight[rows, :k])
            right[k] += int((votes.argmax(axis=1) == truth).sum())
    return {k: right[k] / len(labels) for k in ks}


def nearest(
    bank: np.ndarray, queries: np.ndarray, k: int, block: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """Exact nearest neighbours by cosine, the nearest first; of equal rows, the lowest first.

    Where more than k rows are equal, rounding decides which k of them are returned.

    Both sets may be memory-mapped files: they are read in blocks, the bank once. Memory holds the result,
    one block of each set, and the cosines between these blocks. NumPy searches, in float32; TensorFlow does
    where it is loaded and has a GPU.

    Args:
        bank, queries: [N, F] and [M, F].
        k: neighbours of each query, at most N.
        block: queries at a time.

    Returns:
        (cosines float32 [M, k], rows of the bank int64 [M, k]).
    """
    k = min(k, len(bank))
    bank_block = max(k, min(BLOCK // bank.shape[1], BLOCK // block))
    best = np.full((len(queries), k), -np.inf, np.float32)
    index = np.zeros((len(queries), k), np.int64)
    starts, on_gpu = range(0, len(bank), bank_block), has_gpu()
    blocks = len(starts) * -(-len(queries) // block)
    cosines = np.empty(0 if on_gpu else min(block, len(queries)) * min(bank_block, len(bank)), np.float32)
    with (
        concurrent.futures.ThreadPoolExecutor(cores.search_threads()) as threads,
        progress.bar(None, "neighbours", total=blocks, unit="block", leave=False) as bar,
    ):
        for start in starts:
            candidates = unit_rows(bank[start : start + bank_block])
            step = max(1, CHUNK // len(candidates))
            for at in range(0, len(queries), block):
                rows = slice(at, at + block)
                unit, block_best, block_index = unit_rows(queries[rows]), best[rows], index[rows]
                if on_gpu:
                    from simsiam_tf.features import gpu_search

                    gpu_search.merge_nearest(unit, candidates, block_best, block_index, start)
                    bar.update()
                    continue
                products = cosines[: len(unit) * len(candidates)].reshape(len(unit), len(candidates))
                np.matmul(unit, candidates.T, out=products)
                chunks = [slice(i, i + step) for i in range(0, len(unit), step)]
                merges = [
                    threads.submit(merge_nearest, products[c], block_best[c], block_index[c], start)
                    for c in chunks
                ]
                for merge in merges:
                    merge.result()
                bar.update()
    _order_ties(bank, queries, best, index)
    return best, index


def _order_ties(bank: np.ndarray, queries: np.ndarray, best: np.ndarray, index: np.ndarray) -> None:
    """Computes cosines that differ by no more than rounding again, and sorts by them, in place.

    Matrix products round differently at different rows, so that equal rows get unequal cosines; sums over one
    row at a time do not. best, index: the result of `nearest`.
    """
    with np.errstate(invalid="ignore"):  # −inf less −inf
        close = best[:, :-1] - best[:, 1:] < ROUNDING * np.sqrt(bank.shape[1])
    close = np.pad(close, [(0, 0), (0, 1)]) | np.pad(close, [(0, 0), (1, 0)])
    query, place = np.nonzero(close)
    step = max(1, BLOCK // bank.shape[1])
    for start in range(0, len(query), step):
        q, p = query[start : start + step], place[start : start + step]
        pairs = unit_rows(queries[q]), unit_rows(bank[index[q, p]])
        best[q, p] = np.einsum("ij,ij->i", *pairs)
    rows = np.unique(query)
    order = np.lexsort((index[rows], -best[rows]), axis=1)
    best[rows], index[rows] = (np.take_along_axis(a[rows], order, 1) for a in (best, index))


def nearest_others(
    bank: np.ndarray, queries: np.ndarray, query_rows: np.ndarray, k: int, block: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """As `nearest`, for queries that are rows of the bank, without these rows themselves.

    query_rows: int [M], the row of the bank that each query is; −1 for a query that is not in the bank. A
    cosine of −inf and a row of −1 stand where a query has no further neighbour.
    """
    return without_query_rows(*nearest(bank, queries, k + 1, block), query_rows, k)


def without_query_rows(
    cosines: np.ndarray, index: np.ndarray, query_rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first k of k + 1 neighbours of each query without the query itself, row query_rows[i] of the bank.

    cosines, index: [M, at most k + 1]. See `nearest_others`.
    """
    itself = index == query_rows[:, None]
    # Where ties pushed a row out of its own neighbours, the last one is dropped with it.
    order = np.argsort(itself, axis=1, kind="stable")[:, :k]
    cosines, index, itself = (np.take_along_axis(a, order, 1) for a in (cosines, index, itself))
    cosines[itself], index[itself] = -np.inf, -1
    return cosines, index


def merge_nearest(cosines: np.ndarray, best: np.ndarray, index: np.ndarray, first: int) -> None:
    """Merges new candidates into the k best of each query, in place.

    best, index: [M, k], cosines and rows of the best until now, the nearest first.
    cosines: [M, n], of n candidates: the rows first, first + 1, … of the bank, which come after all rows in
        `index`. Of equal cosines, the lowest row is the first.
    """
    (m, n), k = cosines.shape, best.shape[1]
    better = cosines > best[:, -1:]
    if n > k and np.count_nonzero(better) > 4 * k * m:  # as in the first block
        better &= cosines >= np.partition(cosines, n - k, axis=1)[:, n - k, None]
    query, candidate = np.divmod(np.flatnonzero(better), n)
    if not len(query):
        return
    counts = np.bincount(query, minlength=m)
    place = k + np.arange(len(query)) - (np.cumsum(counts) - counts)[query]
    values = np.full((m, k + counts.max()), -np.inf, np.float32)
    rows = np.zeros(values.shape, np.int64)
    values[:, :k], rows[:, :k] = best, index
    values[query, place], rows[query, place] = cosines[query, candidate], candidate + first
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    best[:], index[:] = np.take_along_axis(values, order, 1), np.take_along_axis(rows, order, 1)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """[n, F] → float32 rows of length 1. Rows of zeros stay zeros."""
    with np.errstate(over="ignore", invalid="ignore"):  # a NaN or an infinity becomes a NaN
        unit = np.asarray(rows, np.float32)
        squares = np.einsum("ij,ij->i", unit, unit)
        if not ((squares > TINY) & np.isfinite(squares)).all():  # squares leave float32's range
            largest = np.abs(np.asarray(rows, np.float64)).max(axis=1, keepdims=True)
            unit = (rows / np.where(largest > 0, largest, 1)).astype(np.float32)
            squares = np.maximum(np.einsum("ij,ij->i", unit, unit), TINY)
    return unit / np.sqrt(squares)[:, None]


def has_gpu() -> bool:
    """Whether TensorFlow is loaded and has a GPU. It is not loaded for that, which takes seconds."""
    if "tensorflow" not in sys.modules:
        return False
    from simsiam_tf.runtime import devices

    return devices.on_gpu()
