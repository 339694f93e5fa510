"""Embeddings in Parquet files: a column "name", and a column "features" of lists of equal length."""

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
    """The module pyarrow.parquet. Raises UserError where it is not installed.

    option: name of the option that gave the file, for the message.
    """
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
    """Writes [N] names, [N, F] features as `dtype`, and `about`; names that are not UTF-8 are escaped."""
    parquet = import_pyarrow("out")
    import pyarrow as pa

    width = features.shape[1]
    numbers = pa.array(np.ascontiguousarray(features, dtype).reshape(-1))
    columns = [
        pa.array([as_text(str(name)) for name in names]),
        pa.FixedSizeListArray.from_arrays(numbers, width),
    ]
    table = pa.table(columns, ["name", "features"], metadata={METADATA: json.dumps(about)})
    # Without dictionaries a file is about as long as its content, as `read_parquet` expects.
    options = {"use_dictionary": False, "write_page_checksum": True}
    parquet.write_table(table, file, row_group_size=max(1, BLOCK // width), **options)


def read_parquet(path: Path) -> tuple[np.ndarray, np.ndarray, dict]:
    """Reads ([N] names, [N, F] features, about), in little more memory than these take.

    Raises:
        ValueError: a missing column or value, lists of unequal lengths, or content that expands to far more
            bytes than the file has.
    """
    parquet = import_pyarrow("embeddings")
    metadata = parquet.read_metadata(path)
    count, schema = metadata.num_rows, metadata.schema.to_arrow_schema()
    missing = {"name", "features"} - set(schema.names)
    if missing:
        raise ValueError(f"it has no column {missing.pop()!r}, but {', '.join(schema.names)[:100]}")
    lists = schema.field("features").type
    is_list = str(lists).startswith(("list<", "large_list<", "fixed_size_list<"))
    dtype = np.dtype(lists.value_type.to_pandas_dtype() if is_list else object)
    if dtype.kind not in "fiu":
        raise ValueError(f"its features are {lists}, not lists of numbers")
    width = _row_width(metadata, dtype, EXPANSION * path.stat().st_size + SPARE)
    features, names, at = np.empty((count, width), dtype), np.empty(count, object), 0
    # A repeated name is in memory only once.
    options = {"read_dictionary": ["name"], "page_checksum_verification": True}
    with parquet.ParquetFile(path, metadata=metadata, **options) as file:
        for batch in file.iter_batches(max(1, min(2**16, BLOCK // width)), columns=["name", "features"]):
            rows = slice(at, at + len(batch))
            names[rows] = _names(batch.column("name"))
            features[rows] = _feature_rows(batch.column("features"), width)
            at += len(batch)
    if at != count:
        raise ValueError(f"it claims {count} rows and has {at}")
    return names, features, json.loads((schema.metadata or {}).get(METADATA, b"{}"))


def _row_width(metadata: Any, dtype: np.dtype, byte_limit: int) -> int:
    """Numbers in a row, by the file's metadata. Raises ValueError for content of more than `byte_limit`."""
    rows, groups = metadata.num_rows, map(metadata.row_group, range(metadata.num_row_groups))
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    numbers = sum(c.num_values for c in columns if c.path_in_schema.startswith("features."))
    size = sum(c.total_uncompressed_size for c in columns)
    if rows < 1 or numbers < rows or numbers % rows:
        raise ValueError(f"it has {rows} rows of {numbers} numbers in all")
    size = max(size, numbers * dtype.itemsize + 100 * rows)
    if size > byte_limit:
        raise ValueError(f"it would take {size} bytes, too many for embeddings in a file of its length")
    return numbers // rows


def _names(column: Any) -> list[str]:
    if column.null_count:
        raise ValueError("a name is missing")
    column = column.dictionary_encode()
    words = [os.fsdecode(w) if isinstance(w, bytes) else str(w) for w in column.dictionary.to_pylist()]
    return [words[i] for i in column.indices.to_pylist()]


def _feature_rows(column: Any, width: int) -> np.ndarray:
    """The lists of a batch as an array [n, width]."""
    values = column.flatten()
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    if column.null_count or values.null_count or (lengths != width).any():
        raise ValueError(f"its features are not all lists of {width} numbers")
    return values.to_numpy(zero_copy_only=False).reshape(-1, width)
