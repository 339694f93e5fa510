"""Embeddings in Parquet files: a column "name", a column "features" of lists of one length."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from simsiam_tf.runtime.display_text import as_text
from simsiam_tf.runtime.errors import UserError

BLOCK = 2**22  # numbers that are read or written at a time
EXPANSION, SPARE = 100, 2**26  # bytes a byte of the file, and besides, that reading may take
METADATA = b"simsiam_tf"


def library(flag: str) -> Any:
    """pyarrow.parquet. Raises UserError where it is not installed."""
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError(
            f"{flag}=….parquet: needs pyarrow: pip install 'simsiam-tf[parquet]'. Or .npz."
        ) from error
    return parquet


def write(file: BinaryIO, names: np.ndarray, features: np.ndarray, about: dict, dtype: np.dtype) -> None:
    """Writes [N] names and [N, F] features, a block of rows at a time.

    Of names that are no text, the bytes that are none are written as escapes.
    """
    parquet = library("out")
    import pyarrow as pa

    width = features.shape[1]
    numbers = pa.list_(pa.from_numpy_dtype(dtype), width)
    schema = pa.schema([("name", pa.string()), ("features", numbers)], {METADATA: json.dumps(about)})
    step = max(1, BLOCK // width)
    # Without dictionaries a file is about as long as what it holds, which `read` relies on.
    options = {"use_dictionary": False, "write_page_checksum": True}
    with parquet.ParquetWriter(file, schema, **options) as writer:
        for start in range(0, len(names), step):
            rows = np.ascontiguousarray(features[start : start + step], dtype)
            columns = [
                pa.array([as_text(str(name)) for name in names[start : start + step]], pa.string()),
                pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), width),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def read(path: Path) -> tuple[np.ndarray, np.ndarray, dict]:
    """([N] names, [N, F] features, about). It takes little more memory than they do.

    Raises:
        ValueError: no such columns, lists of several lengths, values that are missing, or more of them
            than a file of this length would hold.
    """
    parquet = library("embeddings")
    import pyarrow as pa

    metadata = parquet.read_metadata(path)
    schema, most = metadata.schema.to_arrow_schema(), EXPANSION * path.stat().st_size + SPARE
    missing = {"name", "features"} - set(schema.names)
    if missing:
        raise ValueError(f"it has no column {missing.pop()!r}, but {', '.join(schema.names)[:100]}")
    options = {"read_dictionary": ["name"], "page_checksum_verification": True}
    with parquet.ParquetFile(path, metadata=metadata, **options) as file:
        kind = schema.field("features").type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
            raise ValueError(f"its features are {kind}, not lists of numbers")
        dtype = np.dtype(kind.value_type.to_pandas_dtype())
        if dtype.kind not in "fiu":
            raise ValueError(f"its features are lists of {kind.value_type}, not of numbers")
        count, width = metadata.num_rows, _width(metadata, dtype, most)
        features, names = np.empty((count, width), dtype), np.empty(count, object)
        at = 0
        for batch in file.iter_batches(max(1, min(2**16, BLOCK // width)), columns=["name", "features"]):
            rows = slice(at, at + len(batch))
            names[rows], held = _names(batch.column("name"), most)
            features[rows] = _rows(batch.column("features"), width)
            at, most = at + len(batch), most - held
        if at != count:
            raise ValueError(f"it claims {count} rows and has {at}")
        return names, features, json.loads((schema.metadata or {}).get(METADATA, b"{}"))


def _width(metadata: Any, dtype: np.dtype, most: int) -> int:
    """Numbers of a row, by what the file's end says; what would not fit into `most` bytes is refused."""
    numbers = size = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            name = column.path_in_schema.partition(".")[0]
            size += column.total_uncompressed_size if name in ("name", "features") else 0
            numbers += column.num_values if name == "features" else 0
    rows = metadata.num_rows
    if rows < 1 or numbers < rows or numbers % rows:
        raise ValueError(f"it has {rows} rows of {numbers} numbers in all")
    size = max(size, numbers * dtype.itemsize + 100 * rows)
    if size > most:
        raise ValueError(f"it would take {size} bytes, more than a file of its length holds of embeddings")
    return numbers // rows


def _names(column: Any, most: int) -> tuple[list[str], int]:
    """The names of a batch, and how many bytes they are; more than `most` are refused."""
    import pyarrow as pa

    if column.null_count:
        raise ValueError("a name is missing")
    if pa.types.is_dictionary(column.type):
        places, words = column.indices.to_pylist(), _names(column.dictionary, most)[0]
        names = [words[i] for i in places]
    else:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = column.cast(pa.large_binary())
        names = [os.fsdecode(n) if isinstance(n, bytes) else str(n) for n in column.to_pylist()]
    held = sum(map(len, names))
    if held > most:
        raise ValueError("its names are too long")
    return names, held


def _rows(column: Any, width: int) -> np.ndarray:
    """The lists of a batch as rows, [n, width]."""
    values = column.flatten()
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    if column.null_count or values.null_count or (lengths != width).any():
        raise ValueError(f"its features are not all lists of {width} numbers")
    return values.to_numpy(zero_copy_only=False).reshape(-1, width)
