"""Tables of images: Parquet and TFRecord files."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from simsiam_tf.data.images.formats import MAGIC_BYTES, image_format
from simsiam_tf.data.sources.addresses import address_states, expand, open_address, read_bytes, reads_at_once
from simsiam_tf.data.sources.archives import NO_LABEL
from simsiam_tf.data.sources.file_records import cache_folder, kept_arrays
from simsiam_tf.data.sources.members import Members, join_labels
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError, nearest

IMAGE_COLUMNS = ("image", "img", "jpg", "png", "webp", "bytes", "content", "data")  # the first there is
LABEL_COLUMNS = ("label", "labels", "fine_label", "cls", "class")
TFRECORD_IMAGES = ("image/encoded", "image", "image_raw", "jpg", "jpeg", "png")
TFRECORD_LABELS = ("image/class/label", "label")
ROWS_AT_A_TIME = 256  # of a Parquet file


def parquet_members(pattern: str) -> Members:
    """The images in a column of Parquet files: bytes, or Hugging Face's {bytes, path}.

    Parquet has no random access to images, so they are copied into the cache once. Labels: `LABEL_COLUMNS`.

    pattern: path or URL with braces, *, ? and [], and ":COLUMN" where the column has an unusual name.
    """
    files, column = _pattern_and_name(pattern)
    name = f"parquet:{pattern}"
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise UserError(f"{name}: needs pyarrow: pip install 'simsiam-tf[parquet]'.") from error
    return _members_of_files(
        name, expand(files), lambda file, state: _copied_parquet(name, file, state, column)
    )


def tfrecord_members(pattern: str) -> Members:
    """The images in TFRecord files of tf.train.Example, labelled by `TFRECORD_LABELS`.

    pattern: path or URL with braces, *, ? and [], and ":FEATURE" where the feature has an unusual name.
    """
    files, feature = _pattern_and_name(pattern)
    name = f"tfrecord:{pattern}"

    def index(file: str, state: tuple) -> tuple[str, dict[str, Any]]:
        return file, kept_arrays(
            f"tfrecord\0{file}\0{state}\0{feature}", lambda: _scan_tfrecord(name, file, feature)
        )

    return _members_of_files(name, expand(files), index)


def _pattern_and_name(pattern: str) -> tuple[str, str | None]:
    """("data/*.parquet", "photo") of "data/*.parquet:photo", also of a URL, whose port has a colon too."""
    match = re.match(r"[^/]*://[^/]*", pattern)
    host = match[0] if match else ""
    files, colon, name = pattern[len(host) :].rpartition(":")
    return (host + files, name) if colon and files else (pattern, None)


def _members_of_files(
    name: str, files: list[str], index: Callable[[str, tuple], tuple[str, dict[str, Any]]]
) -> Members:
    """Members from files whose images lie at known places.

    index: (file, its state) → (file that holds the images' bytes, arrays "offset", "length" (−1: no image)
    and "label" of its rows, and "classes", their names).
    """
    shown = printable_text(name)
    states = [tuple(state) for state in address_states(files).tolist()]
    tables, holders = [], []
    for file, state in progress.bar(list(zip(files, states, strict=True)), f"reading {shown}"):
        try:
            holder, table = index(file, state)
        except UserError:
            raise
        except (OSError, ValueError, EOFError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{shown}: {file} is damaged or cut off ({reason}).") from error
        holders.append(holder)
        tables.append(table)
    sizes = [len(table["offset"]) for table in tables]
    if not sum(sizes):
        raise UserError(f"{shown}: holds no image.")
    offset, length = (np.concatenate([t[key] for t in tables]) for key in ("offset", "length"))
    label, classes = join_labels([(t["label"], tuple(t["classes"].tolist())) for t in tables])
    file_of = np.repeat(np.arange(len(files)), sizes)
    names = [
        f"{posixpath.basename(file)}/{i:08d}" for file, n in zip(files, sizes, strict=True) for i in range(n)
    ]

    def read(i: int) -> bytes:
        if length[i] < 0:
            raise ValueError("no image in this row")
        return read_bytes(holders[file_of[i]], int(offset[i]), int(length[i]))

    return Members(
        name, names, np.array(states, np.int64)[file_of], read, "\0".join([name, *files]),
        label if classes else None, classes, sizes=np.maximum(length, 0),
        reads_at_once=reads_at_once(holders),
    )  # fmt: skip


def _copied_parquet(name: str, file: str, state: tuple, column: str | None) -> tuple[str, dict[str, Any]]:
    """Copies the images of a Parquet file into the cache; returns the copy, and the places in it."""
    key = f"parquet\0{file}\0{state}\0{column}"
    copy = cache_folder() / "tables" / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.bin"

    def write() -> dict[str, Any]:
        copy.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(copy.parent).free
        if state[0] > free:
            raise UserError(
                f"{name}: its images are copied to {copy.parent}, where {free >> 20} MiB are free; "
                f"they take up to {state[0] >> 20} MiB. Choose another place: SIMSIAM_TF_CACHE=/large/disk."
            )
        unfinished = copy.with_name(f".writing-{os.getpid()}-{copy.name}.tmp")
        with open_address(file) as opened, open(unfinished, "wb") as out:
            arrays = _write_parquet_images(name, opened, column, out)
        unfinished.replace(copy)
        return arrays

    return str(copy), kept_arrays(key, write, anew=not copy.is_file())


def _write_parquet_images(name: str, opened: Any, column: str | None, out: Any) -> dict[str, Any]:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(opened)
    schema = table.schema_arrow
    column = _image_column(name, schema, column)
    label = next((c for c in LABEL_COLUMNS if c in schema.names), None)
    lengths, labels = [], []
    for batch in table.iter_batches(ROWS_AT_A_TIME, columns=[c for c in (column, label) if c]):
        for cell in batch.column(column).to_pylist():
            data = cell.get("bytes") if isinstance(cell, dict) else cell
            lengths.append(len(data) if data else -1)
            out.write(data or b"")
        labels += batch.column(label).to_pylist() if label else [NO_LABEL] * batch.num_rows
    length = np.array(lengths, np.int64)
    numbers, classes = _numbered(labels, _class_names(schema, label))
    offset = np.concatenate([[0], np.cumsum(np.maximum(length, 0))[:-1]]).astype(np.int64)
    return {"offset": offset[: len(length)], "length": length, "label": numbers, "classes": classes}


def _image_column(name: str, schema: Any, column: str | None) -> str:
    """The column of images, by its type and name."""
    import pyarrow as pa

    def holds_bytes(field: Any) -> bool:
        kind = field.type
        if pa.types.is_struct(kind):
            return "bytes" in [kind.field(i).name for i in range(kind.num_fields)]
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    fitting = [field.name for field in schema if holds_bytes(field)]
    if column in fitting:
        return str(column)
    listed = ", ".join(f"{field.name} ({field.type})" for field in schema)[:400]
    if column is not None:
        raise UserError(
            f"{name}: has no column {column!r} of bytes.{nearest(column, fitting)} It has {listed}."
        )
    chosen = next((c for c in IMAGE_COLUMNS if c in fitting), fitting[0] if len(fitting) == 1 else None)
    if chosen is None:
        which = "several columns" if fitting else "no column"
        raise UserError(f"{name}: has {which} of bytes: {listed}. Name one: {name}:COLUMN.")
    return chosen


def _class_names(schema: Any, label: str | None) -> list[str]:
    """Names of a ClassLabel, which Hugging Face writes into the schema's metadata."""
    try:
        info = json.loads(schema.metadata[b"huggingface"])["info"]["features"][label]
        return [str(name) for name in info["names"]]
    except (TypeError, KeyError, ValueError):
        return []


def _numbered(labels: list[Any], class_names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(class of each label, −1: none; class names). Integers stay, texts are sorted, others count as none."""
    if all(isinstance(label, int | None) for label in labels):
        numbers = [NO_LABEL if label is None else label for label in labels]
        return np.array(numbers, np.int64), np.array(class_names, np.str_)
    texts = [label if isinstance(label, str) else "" for label in labels]
    classes = sorted(set(texts) - {""})
    place = {text: i for i, text in enumerate(classes)} | {"": NO_LABEL}
    return np.array([place[text] for text in texts], np.int64), np.array(classes, np.str_)


def _scan_tfrecord(name: str, file: str, feature: str | None) -> dict[str, Any]:
    """Places and labels of the images in a TFRecord file, in one pass over it."""
    rows: list[tuple[int, int, int]] = []
    with open_address(file) as opened:
        for start, data in _records(opened):
            import tensorflow as tf

            features = tf.train.Example.FromString(data).features.feature
            feature = feature or _image_feature(name, features)
            values = features[feature].bytes_list.value if feature in features else ()
            place = data.find(values[0]) if values else -1
            label = next((features[f].int64_list.value for f in TFRECORD_LABELS if f in features), ())
            rows.append((start + place, len(values[0]) if values else -1, label[0] if label else NO_LABEL))
    offset, length, labels = np.array(rows, np.int64).reshape(-1, 3).T
    return {"offset": offset, "length": length, "label": labels, "classes": np.array([], np.str_)}


def _records(file: Any) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of each record; a file has its length, a checksum of that, the bytes, a checksum."""
    at = 0
    while header := file.read(12):
        length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else 0
        data = file.read(length)
        if len(header) < 12 or len(data) < length or len(file.read(4)) < 4:
            raise ValueError(f"cut off after byte {at}")
        yield at + 12, data
        at += 16 + length


def _image_feature(name: str, features: Any) -> str:
    """The feature of images, by its name and the first bytes of its value."""
    holds_image = []
    for key in features:
        for value in features[key].bytes_list.value[:1]:
            try:
                image_format(value[:MAGIC_BYTES])
                holds_image.append(key)
            except ValueError:
                continue
    chosen = next((key for key in (*TFRECORD_IMAGES, *sorted(holds_image)) if key in holds_image), None)
    if chosen is None:
        raise UserError(
            f"{name}: no feature of its first record holds an image; it has {', '.join(sorted(features))}. "
            f"Name one: {name}:FEATURE."
        )
    return chosen
