"""Approximate nearest neighbours by cosine in large sets, by an inverted file (IVF) of faiss."""

from __future__ import annotations

from typing import Any

import numpy as np

from simsiam_tf.curation.exact_search import nearest_rows
from simsiam_tf.curation.unit_rows import UnitRows
from simsiam_tf.features.knn import without_query_rows
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.errors import UserError

RECALL = 0.95  # more lists are searched until the recall on a sample reaches it
SAMPLE = 256  # queries whose neighbours are also searched exactly
PROBES = (8, 16, 32, 64, 128)  # numbers of lists to search for a query, in this order
TRAINING_ROWS = 40  # rows for each list, on which the lists are trained; faiss asks for 39 or more
QUERY_BLOCK = 4096
ROUNDING = 1e-5  # cosines that differ by less are equal


def nearest_rows_ivf(
    bank: UnitRows, queries: UnitRows, k: int, query_rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, float]:
    """As `nearest_rows`, but approximate: of 2 √N lists of rows, only those nearest to a query are searched.

    The index takes 4·N·F bytes. Cosines are exact; neighbours in other lists are missed.

    Returns:
        (cosines float32 [M, k], rows int64 [M, k], recall on a sample of queries, in [0, 1]).
    """
    index = _build(bank)
    rng = np.random.default_rng(0)
    sample = np.sort(rng.choice(len(queries), min(SAMPLE, len(queries)), replace=False))
    sample_rows = None if query_rows is None else query_rows[sample]
    exact, _ = nearest_rows(bank, queries.take(sample), k, sample_rows)
    recall = 0.0
    for index.nprobe in sorted({min(probes, index.nlist) for probes in PROBES}):
        cosine, _ = _search(index, queries[sample], k, sample_rows)
        recall = float((cosine >= exact[:, -1:] - ROUNDING).mean())
        if recall >= RECALL:
            break
    progress.say(
        f"neighbours: approximate, {index.nprobe} of {index.nlist} lists searched; recall of the {k} nearest "
        f"{recall:.3f} on {len(sample)} rows"
    )
    best = np.empty((len(queries), k), np.float32)
    rows = np.empty((len(queries), k), np.int64)
    # Queries of one list follow each other, so that the lists they share stay in the processor's cache.
    lists = [index.quantizer.search(block, 1)[1][:, 0] for _, block in queries.blocks()]
    order = np.argsort(np.concatenate(lists), kind="stable")
    starts = range(0, len(queries), QUERY_BLOCK)
    for start in progress.bar(starts, "neighbours", unit="block", leave=False):
        block = order[start : start + QUERY_BLOCK]
        block_rows = None if query_rows is None else query_rows[block]
        best[block], rows[block] = _search(index, queries[block], k, block_rows)
    missing = np.flatnonzero((rows < 0).any(axis=1))  # the lists searched held fewer than k rows
    if len(missing):
        missing_rows = None if query_rows is None else query_rows[missing]
        best[missing], rows[missing] = nearest_rows(bank, queries.take(missing), k, missing_rows)
    return best, rows, recall


def _build(bank: UnitRows) -> Any:
    faiss = import_faiss()
    lists = max(1, min(int(2 * np.sqrt(len(bank))), len(bank) // TRAINING_ROWS))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(bank.width), bank.width, lists, faiss.METRIC_INNER_PRODUCT)
    rng = np.random.default_rng(0)
    sample = np.sort(rng.choice(len(bank), min(lists * TRAINING_ROWS, len(bank)), replace=False))
    with progress.announced(f"neighbours: {lists} lists are trained on {len(sample):,} rows"):
        index.train(bank[sample])
    steps = -(-len(bank) // bank.step)
    for _, rows in progress.bar(bank.blocks(), "index", total=steps, unit="block", leave=False):
        index.add(rows)
    return index


def _search(
    index: Any, queries: np.ndarray, k: int, query_rows: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(cosines, rows) of the k nearest in the searched lists; a row is −1 where these hold fewer."""
    cosine, rows = index.search(queries, k + (query_rows is not None))
    return (cosine, rows) if query_rows is None else without_query_rows(cosine, rows, query_rows, k)


def import_faiss() -> Any:
    """The module faiss. Raises UserError where it is not installed."""
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            "the neighbours of so many pictures need faiss: pip install 'simsiam-tf[faiss]'."
        ) from error
    return faiss
