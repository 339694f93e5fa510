"""A table of the neighbours of many queries: query, rank, name and cosine, as CSV or Parquet."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from simsiam_tf.features.columns import row_blocks
from simsiam_tf.features.names import ArrowNames
from simsiam_tf.features.parquet import import_pyarrow
from simsiam_tf.runtime.atomic_files import atomic_file
from simsiam_tf.runtime.csv_lines import csv_writer
from simsiam_tf.runtime.display_text import as_text
from simsiam_tf.runtime.errors import UserError

COLUMNS = ("query", "rank", "name", "cosine")
SUFFIXES = (".csv", ".parquet")
Block = tuple[list[str], list[int], list[str], np.ndarray]  # values of `COLUMNS`


def write_table(
    path: Path,
    queries: Sequence[str] | np.ndarray | ArrowNames,
    names: np.ndarray | ArrowNames,
    cosines: np.ndarray,
    rows: np.ndarray,
) -> int:
    """Writes a row for each neighbour of each query; returns their number.

    Args:
        path: the file, whose suffix is one of `SUFFIXES`.
        queries: names of the queries, [M]. names: of the images that were searched, [N].
        cosines, rows: [M, k], of the neighbours, the nearest first; a row of −1 is none.

    Raises:
        UserError: the file cannot be written.
    """
    if rows.size > len(names):
        names = np.asarray(names, object)
    try:
        with atomic_file(path) as file:
            blocks = _blocks(queries, names, cosines, rows)
            (_write_csv if path.suffix == ".csv" else _write_parquet)(file, blocks)
    except OSError as error:
        raise UserError(f"out={path}: cannot be written ({error.strerror}). Make room.") from error
    return int((rows >= 0).sum())


def _blocks(queries: Any, names: Any, cosines: np.ndarray, rows: np.ndarray) -> Iterator[Block]:
    for block in row_blocks(len(rows), 64 * max(1, rows.shape[1])):
        query, place = np.nonzero(rows[block] >= 0)
        query_names = [as_text(str(name)) for name in queries[block]]
        neighbours = [as_text(str(name)) for name in names[rows[block][query, place]]]
        yield [query_names[i] for i in query], (place + 1).tolist(), neighbours, cosines[block][query, place]


def _write_csv(file: BinaryIO, blocks: Iterator[Block]) -> None:
    text = io.TextIOWrapper(file, "utf-8", newline="")
    writer = csv_writer(text)
    writer.writerow(COLUMNS)
    for query, rank, name, cosine in blocks:
        writer.writerows(zip(query, rank, name, (f"{c:.6f}" for c in cosine), strict=True))
    text.detach()  # which flushes it


def _write_parquet(file: BinaryIO, blocks: Iterator[Block]) -> None:
    parquet = import_pyarrow("out")
    import pyarrow as pa

    types = (pa.string(), pa.int32(), pa.string(), pa.float32())
    schema = pa.schema(list(zip(COLUMNS, types, strict=True)))
    with parquet.ParquetWriter(file, schema) as writer:
        for block in blocks:
            arrays = [pa.array(values, kind) for values, kind in zip(block, types, strict=True)]
            writer.write_table(pa.table(arrays, schema=schema))
