"""The pictures of a set as a Parquet table, for embedding-atlas, FiftyOne, pandas and others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_tf.curation_page.content import Categories, CurationContent, Numbers
from simsiam_tf.runtime.atomic_files import atomic_file, check_writable
from simsiam_tf.runtime.display_text import as_text
from simsiam_tf.runtime.errors import UserError

BLOCK = 2**16  # rows of a row group
OWN = ("name", "filepath", "x", "y", "neighbours")


def write_table(content: CurationContent, out: Path | str) -> Path:
    """Writes a row a picture, in the order of the set, and returns the file's path.

    Columns: "name", "filepath" (what a list takes), "x", "y" (float32), "neighbours" ({"ids": rows from 0,
    "distances": 1 − cosine}, the nearest first, without the picture itself), and each column of the content
    by its title in lower case, as text or float64, null where a picture has none. Undecodable bytes of names
    are escaped. Memory holds one block of rows.

    Raises:
        UserError: pyarrow is missing, or the file cannot be written.
    """
    from simsiam_tf.features.parquet import import_pyarrow

    out = Path(out).expanduser()
    parquet = import_pyarrow("out")
    check_writable(out)
    schema = _schema(content)
    try:
        with atomic_file(out) as file, parquet.ParquetWriter(file, schema) as writer:
            for start in range(0, max(1, len(content.names)), BLOCK):
                writer.write_table(_block(content, slice(start, start + BLOCK), schema))
    except OSError as error:
        raise UserError(f"out={out}: cannot be written ({error.strerror}).") from error
    return out


def column_name(title: str) -> str:
    """The table's name of a column: "Outlier score" → "outlier_score"; after one of `OWN` comes a "_"."""
    name = re.sub(r"\W+", "_", title.lower()).strip("_") or "column"
    return f"{name}_" if name in OWN else name


def _schema(content: CurationContent) -> Any:
    import pyarrow as pa

    near = pa.struct({"ids": pa.list_(pa.int64()), "distances": pa.list_(pa.float32())})
    texts, places = ("name", "filepath"), ("x", "y")
    fields: list[Any] = [*((t, pa.string()) for t in texts), *((p, pa.float32()) for p in places)]
    if content.neighbours is not None:
        fields.append(("neighbours", near))
    for column in content.columns:
        is_text = isinstance(column, Categories)
        fields.append((column_name(column.title), pa.string() if is_text else pa.float64()))
    names = [name for name, _ in fields]
    if len(set(names)) < len(names):
        raise ValueError(f"columns of the table must differ. Received: {', '.join(names)}")
    return pa.schema(fields)


def _block(content: CurationContent, rows: slice, schema: Any) -> Any:
    import pyarrow as pa

    points = np.asarray(content.points[rows], np.float32)
    columns = [
        pa.array([as_text(name) for name in content.names[rows]], pa.string()),
        pa.array([as_text(text) for text in content.lists[rows]], pa.string()),
        pa.array(np.ascontiguousarray(points[:, 0])),
        pa.array(np.ascontiguousarray(points[:, 1])),
    ]
    if content.neighbours is not None:
        near = np.asarray(content.neighbours[rows], np.int64)
        cosines = np.full(near.shape, np.nan) if content.cosines is None else content.cosines[rows]
        distances = 1 - np.asarray(cosines, np.float32)
        columns.append(_neighbours(near, distances, schema.field("neighbours").type))
    columns += [_values(column, rows) for column in content.columns]
    return pa.table(columns, schema=schema)


def _neighbours(near: np.ndarray, distances: np.ndarray, kind: Any) -> Any:
    """A column of {"ids", "distances"}, without neighbours of −1."""
    import pyarrow as pa

    fits = near >= 0
    offsets = pa.array(np.concatenate([[0], np.cumsum(fits.sum(axis=1))]).astype(np.int32))
    lists = [pa.ListArray.from_arrays(offsets, pa.array(values[fits])) for values in (near, distances)]
    return pa.StructArray.from_arrays(lists, fields=list(kind))


def _values(column: Categories | Numbers, rows: slice) -> Any:
    import pyarrow as pa

    if isinstance(column, Categories):
        names = [as_text(str(name)) for name in column.names]
        return pa.array([names[c] if c >= 0 else None for c in np.asarray(column.codes)[rows]], pa.string())
    values = np.asarray(column.values, np.float64)[rows]
    return pa.array(values, mask=np.isnan(values))
