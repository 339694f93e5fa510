"""Embeddings in Parquet files: a column "name", and a column "features" of lists of one length."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from simsiam_tf.runtime.display_text import as_text
from simsiam_tf.runtime.errors import UserError

BLOCK = 2**22  # numbers read or written at a time
EXPANSION, SPARE = 100, 2**26  # reading may take EXPANSION · file size + SPARE bytes
METADATA = b"simsiam_tf"


def import_pyarrow(option: str) -> Any:
    """The module pyarrow.parquet. Raises UserError where it is not installed."""
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError(
            f"{option}=….parquet: needs pyarrow: pip install 'simsiam-tf[parquet]'. Or use .npz."
        ) from error
    return parquet


def write_parquet(
    file: BinaryIO, names: np.ndarray, features: np.ndarray, about: dict, dtype: np.dtype
) -> None:
    """Writes [N] names and [N, F] features, a block of rows at a time.

    Bytes of names that are not UTF-8 are written as escapes.
    """
    parquet = import_pyarrow("out")
    import pyarrow as pa

    width = features.shape[1]
    numbers = pa.list_(pa.from_numpy_dtype(dtype), width)
    schema = pa.schema([("name", pa.string()), ("features", numbers)], {METADATA: json.dumps(about)})
    step = max(1, BLOCK // width)
    # Without dictionaries a file is about as long as its content, on which `read_parquet` relies.
    options = {"use_dictionary": False, "write_page_checksum": True}
    with parquet.ParquetWriter(file, schema, **options) as writer:
        for start in range(0, len(names), step):
            rows = np.ascontiguousarray(features[start : start + step], dtype)
            columns = [
                pa.array([as_text(str(name)) for name in names[start : start + step]], pa.string()),
                pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), width),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def read_parquet(path: Path) -> tuple[np.ndarray, np.ndarray, dict]:
    """Reads ([N] names, [N, F] features, about), in little more memory than these take.

    Raises:
        ValueError: a missing column or value, lists of several lengths, or content that expands to far more
            bytes than the file has.
    """
    parquet = import_pyarrow("embeddings")

    metadata = parquet.read_metadata(path)
    schema, bytes_left = metadata.schema.to_arrow_schema(), EXPANSION * path.stat().st_size + SPARE
    missing = {"name", "features"} - set(schema.names)
    if missing:
        raise ValueError(f"it has no column {missing.pop()!r}, but {', '.join(schema.names)[:100]}")
    options = {"read_dictionary": ["name"], "page_checksum_verification": True}
    with parquet.ParquetFile(path, metadata=metadata, **options) as file:
        lists = schema.field("features").type
        if not str(lists).startswith(("list<", "large_list<", "fixed_size_list<")):
            raise ValueError(f"its features are {lists}, not lists of numbers")
        dtype = np.dtype(lists.value_type.to_pandas_dtype())
        if dtype.kind not in "fiu":
            raise ValueError(f"its features are lists of {lists.value_type}, not of numbers")
        count, width = metadata.num_rows, _row_width(metadata, dtype, bytes_left)
        features, names = np.empty((count, width), dtype), np.empty(count, object)
        at = 0
        for batch in file.iter_batches(max(1, min(2**16, BLOCK // width)), columns=["name", "features"]):
            rows = slice(at, at + len(batch))
            names[rows] = batch_names = _names(batch.column("name"), bytes_left)
            features[rows] = _feature_rows(batch.column("features"), width)
            at, bytes_left = at + len(batch), bytes_left - sum(map(len, batch_names))
        if at != count:
            raise ValueError(f"it claims {count} rows and has {at}")
        return names, features, json.loads((schema.metadata or {}).get(METADATA, b"{}"))


def _row_width(metadata: Any, dtype: np.dtype, byte_limit: int) -> int:
    """Numbers in a row, by the file's metadata. Raises ValueError for content of more than `byte_limit`."""
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
    if size > byte_limit:
        raise ValueError(f"it would take {size} bytes, too many for embeddings in a file of its length")
    return numbers // rows


def _names(column: Any, byte_limit: int) -> list[str]:
    """The names of a batch. Raises ValueError for a missing name, or more than `byte_limit` characters."""
    import pyarrow as pa

    if column.null_count:
        raise ValueError("a name is missing")
    if pa.types.is_dictionary(column.type):
        words = _names(column.dictionary, byte_limit)
        names = [words[i] for i in column.indices.to_pylist()]
    else:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = column.cast(pa.large_binary())
        names = [os.fsdecode(n) if isinstance(n, bytes) else str(n) for n in column.to_pylist()]
    if sum(map(len, names)) > byte_limit:
        raise ValueError("its names are too long")
    return names


def _feature_rows(column: Any, width: int) -> np.ndarray:
    """The lists of a batch as an array [n, width]."""
    values = column.flatten()
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    if column.null_count or values.null_count or (lengths != width).any():
        raise ValueError(f"its features are not all lists of {width} numbers")
    return values.to_numpy(zero_copy_only=False).reshape(-1, width)
