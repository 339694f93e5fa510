"""Exact nearest neighbours of unit rows."""

from __future__ import annotations

import numpy as np

from simsiam_tf.curation.unit_rows import UnitRows
from simsiam_tf.features.knn import nearest, nearest_others


def nearest_rows(
    bank: UnitRows, queries: UnitRows, k: int, query_rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows of the bank, as by `features.nearest`.

    Args:
        k: number of neighbours, at most len(bank), and one less with `query_rows`.
        query_rows: int [M], the row of the bank that each query is, which is left out; None where the queries
            are not from the bank.

    Returns:
        (cosines float32 [M, k], rows of the bank int64 [M, k]).
    """
    if query_rows is None:
        return nearest(bank.features, queries.features, k)
    return nearest_others(bank.features, queries.features, query_rows, k)
