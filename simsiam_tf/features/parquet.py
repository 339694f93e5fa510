"""Embeddings in Parquet files: a column of names, and one of lists of numbers, all of one length."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from simsiam_tf.features.columns import BLOCK, Columns, row_blocks
from simsiam_tf.features.names import ArrowNames, Names, row_numbers
from simsiam_tf.runtime.display_text import as_text
from simsiam_tf.runtime.errors import UserError

EXPANSION, SPARE = 100, 2**26  # reading may take EXPANSION · file size + SPARE bytes
METADATA = b"simsiam_tf"
TEXT = ("string", "large_string", "dictionary<values=string")  # types of Arrow
# Without dictionaries a file is about as long as its content, as `read_parquet` expects.
WRITING = {"use_dictionary": False, "write_page_checksum": True}


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


def write_parquet(file: BinaryIO, names: Names, features: np.ndarray, about: dict, dtype: np.dtype) -> None:
    """Writes [N] names, [N, F] features as `dtype`, and `about`, a block in memory at a time.

    Names that are not UTF-8 are escaped.
    """
    parquet = import_pyarrow("out")
    import pyarrow as pa

    width = features.shape[1]
    numbers = pa.list_(pa.from_numpy_dtype(dtype), width)
    schema = pa.schema([("name", pa.string()), ("features", numbers)], {METADATA: json.dumps(about)})
    with parquet.ParquetWriter(file, schema, **WRITING) as writer:
        for rows in row_blocks(*features.shape):
            flat = pa.array(np.ascontiguousarray(features[rows], dtype).reshape(-1))
            vectors = pa.FixedSizeListArray.from_arrays(flat, width)
            writer.write_table(pa.table([name_array(names[rows]), vectors], schema=schema))


def name_array(names: Names) -> Any:
    """Names as an array of Arrow; those that are not UTF-8 are escaped."""
    import pyarrow as pa

    return pa.array([as_text(str(name)) for name in names], pa.string())


def read_parquet(path: Path, columns: Columns) -> tuple[np.ndarray | ArrowNames, np.ndarray, dict]:
    """Reads ([N] names, [N, F] features, about), in little more memory than these take.

    columns: which columns these are. Names are numbers of rows where there are none.

    Raises:
        ValueError: no column of vectors, a missing value, lists of unequal lengths, or content that expands
            to far more bytes than the file has.
        UserError: several columns would do, or one that `columns` names is missing.
    """
    parquet = import_pyarrow("embeddings")
    metadata = parquet.read_metadata(path)
    count, schema = metadata.num_rows, metadata.schema.to_arrow_schema()
    vectors = [field.name for field in schema if _number_type(field.type).kind == "f"]
    features_name = columns.choose_features(vectors, schema.names)
    if features_name is None:
        shown = ", ".join(f"{field.name} of {field.type}" for field in schema)
        raise ValueError(f"it has no column of lists of floating point, but {shown[:200]}")
    lists = schema.field(features_name).type
    dtype = _number_type(lists)
    if dtype.kind not in "fiu":
        raise ValueError(f"its {features_name} are {lists}, not lists of numbers")
    width = _row_width(metadata, features_name, dtype, path)
    texts = [field.name for field in schema if str(field.type).startswith(TEXT)]
    names_name = columns.choose_names(texts, schema.names)
    features, at = np.empty((count, width), dtype), 0
    names, text = [], [] if names_name is None else [names_name]
    for batch in _batches(path, metadata, [features_name], text, max(1, min(2**16, BLOCK // width))):
        features[at : at + len(batch)] = _feature_rows(batch.column(features_name), width)
        if names_name is not None:
            names.append(_name_chunk(batch.column(names_name)))
        at += len(batch)
    if at != count:
        raise ValueError(f"it claims {count} rows and has {at}")
    about = json.loads((schema.metadata or {}).get(METADATA, b"{}"))
    return row_numbers(count) if names_name is None else ArrowNames(names), features, about


def read_name_column(path: Path) -> ArrowNames:
    """The column "name" of a Parquet file, as `embed` writes it. Raises ValueError for a missing name."""
    metadata = import_pyarrow("embeddings").read_metadata(path)
    _check_size(_columns(metadata), 0, path)
    return ArrowNames(
        [_name_chunk(batch.column("name")) for batch in _batches(path, metadata, [], ["name"], 2**16)]
    )


def embedding_blocks(path: Path, width: int) -> Iterator[tuple[ArrowNames, np.ndarray]]:
    """Blocks ([n] names, [n, width] features) of a file by `write_parquet`.

    Raises:
        ValueError: as `read_parquet`.
    """
    metadata = import_pyarrow("embeddings").read_metadata(path)
    _check_size(_columns(metadata), 0, path)
    for batch in _batches(path, metadata, ["features"], ["name"], max(1, min(2**16, BLOCK // width))):
        yield ArrowNames([_name_chunk(batch.column("name"))]), _feature_rows(batch.column("features"), width)


def read_about(path: Path) -> tuple[int, dict]:
    """(number of rows, `about`) of a file by `write_parquet`, by its last bytes alone."""
    metadata = import_pyarrow("embeddings").read_metadata(path)
    return metadata.num_rows, json.loads((metadata.metadata or {}).get(METADATA, b"{}"))


def _batches(path: Path, metadata: Any, vectors: list[str], names: list[str], rows: int) -> Iterator[Any]:
    import pyarrow.parquet as parquet

    # A repeated name is in memory only once.
    options = {"read_dictionary": names, "page_checksum_verification": True}
    with parquet.ParquetFile(path, metadata=metadata, **options) as file:
        yield from file.iter_batches(rows, columns=[*vectors, *names])


def _number_type(lists: Any) -> np.dtype:
    """The type of the numbers in lists of Arrow's; that of objects for other types."""
    if str(lists).startswith(("list<", "large_list<", "fixed_size_list<")):
        with contextlib.suppress(NotImplementedError, TypeError):  # types that NumPy has not
            return np.dtype(lists.value_type.to_pandas_dtype())
    return np.dtype(object)


def _columns(metadata: Any) -> list[Any]:
    """The columns of all groups of rows."""
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    return [group.column(i) for group in groups for i in range(group.num_columns)]


def _row_width(metadata: Any, column: str, dtype: np.dtype, path: Path) -> int:
    """Numbers in a row, by the file's metadata. Raises ValueError as `_check_size`."""
    rows, columns = metadata.num_rows, _columns(metadata)
    numbers = sum(c.num_values for c in columns if c.path_in_schema.startswith(f"{column}."))
    if rows < 1 or numbers < rows or numbers % rows:
        raise ValueError(f"it has {rows} rows of {numbers} numbers in all")
    _check_size(columns, numbers * dtype.itemsize + 100 * rows, path)
    return numbers // rows


def _check_size(columns: list[Any], least: int, path: Path) -> None:
    """Raises ValueError for content of far more bytes than the file has. least: bytes that it will take."""
    size = max(least, sum(c.total_uncompressed_size for c in columns))
    if size > EXPANSION * path.stat().st_size + SPARE:
        raise ValueError(f"it would take {size} bytes, too many for embeddings in a file of its length")


def _name_chunk(column: Any) -> Any:
    """A batch of names as a dictionary array, whose dictionary has the names of this batch alone."""
    if column.null_count:
        raise ValueError("a name is missing")
    column = column.dictionary_encode()
    if len(column.dictionary) <= len(column):
        return column
    import pyarrow as pa

    # Arrow gives each batch the dictionary of all batches before it, too.
    used, indices = np.unique(column.indices.to_numpy(), return_inverse=True)
    return pa.DictionaryArray.from_arrays(indices.astype(np.int32), column.dictionary.take(pa.array(used)))


def _feature_rows(column: Any, width: int) -> np.ndarray:
    """The lists of a batch as an array [n, width]."""
    values = column.flatten()
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    if column.null_count or values.null_count or (lengths != width).any():
        raise ValueError(f"its features are not all lists of {width} numbers")
    return values.to_numpy(zero_copy_only=False).reshape(-1, width)
