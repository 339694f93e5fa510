"""Embeddings in .npz files: arrays "names", "features" and "about", memory-mapped, never decompressed."""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from simsiam_tf.features.columns import Columns, row_blocks
from simsiam_tf.features.names import Names, row_numbers
from simsiam_tf.features.npy import write_npy
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.zip_directory import directory_bytes

BLOCK = 2**24  # bytes verified at a time
DIRECTORY_BYTES = 2**16  # longest table of contents of an archive; that of three arrays has about 200
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def write_npz(file: BinaryIO, names: Names, features: np.ndarray, about: dict, dtype: np.dtype) -> None:
    """Writes [N] names, [N, F] features as `dtype`, and `about` as JSON, a block in memory at a time."""
    text = np.dtype(f"<U{max(1, max(len(str(name)) for name in names))}")
    texts = (np.array([str(name) for name in names[rows]], text) for rows in row_blocks(len(names)))
    blocks = (features[rows] for rows in row_blocks(*features.shape))
    record = np.array(json.dumps(about))
    with zipfile.ZipFile(file, "w") as archive:
        for name, shape, kind, parts in (
            ("names", (len(names),), text, texts),
            ("features", features.shape, dtype, blocks),
            ("about", (), record.dtype, [record]),
        ):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                write_npy(member, shape, kind, parts)  # pyright: ignore[reportArgumentType]


def read_npz(path: Path, columns: Columns) -> tuple[np.ndarray, np.ndarray, dict]:
    """Reads ([N] names, [N, F] features, about), the arrays read-only and their checksums verified.

    columns: which arrays these are. Names are numbers of rows where there are none.

    Raises:
        ValueError: no archive, or one of many files; an array is missing, compressed, empty, neither numbers
            nor text, or not as long as its shape says. zipfile raises its own errors for damaged files.
        UserError: several arrays would do, or one that `columns` names is missing.
    """
    with open(path, "rb") as file:
        if directory_bytes(file) > DIRECTORY_BYTES:
            raise ValueError("its table of contents is longer than that of a few arrays")
        with zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            headers = _readable_headers(archive, members)
            vectors = [name for name, (shape, kind) in headers.items() if len(shape) == 2 and kind == "f"]
            features_name = columns.choose_features(vectors, list(members))
            if features_name is None:
                raise ValueError(_no_vectors(members, headers))
            features = _map_array(file, archive, members[features_name])
            count = features.shape[:1]
            texts = [name for name, (shape, kind) in headers.items() if shape == count and kind in "US"]
            names_name = columns.choose_names(texts, list(members))
            if names_name is None:
                names = row_numbers(*count)
            else:
                names = _map_array(file, archive, members[names_name])
            about = _map_array(file, archive, members["about"]) if "about" in members else np.array("{}")
    if names.dtype.kind == "S":
        names = np.array([os.fsdecode(name) for name in names.tolist()], object)
    elif names.dtype.kind in "iu":
        names = names.astype(str)
    if about.size != 1 or about.dtype.kind not in "SU" or about.nbytes > 2**20:
        raise ValueError("its 'about' is not a short text")
    return names, features, json.loads(about.item())


def _readable_headers(
    archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]
) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name → (shape, kind of type) of the arrays that can be mapped."""
    headers = {}
    for name, member in members.items():
        with contextlib.suppress(Exception), archive.open(member) as stream:  # read below, if it is needed
            _check_stored(member)
            shape, _, dtype = _HEADERS[np.lib.format.read_magic(stream)](stream)
            headers[name] = shape, dtype.kind
    return headers


def _no_vectors(members: dict[str, zipfile.ZipInfo], headers: dict[str, tuple[tuple[int, ...], str]]) -> str:
    for member in members.values():
        _check_stored(member)
    kinds = {"f": "floating point", "i": "whole numbers", "u": "whole numbers", "U": "text", "S": "text"}
    shown = [f"{name} {list(shape)} of {kinds.get(kind, kind)}" for name, (shape, kind) in headers.items()]
    return f"it has no array [N, F] of floating point, but {', '.join(shown)[:200] or 'no array'}"


def _check_stored(member: zipfile.ZipInfo) -> None:
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        raise ValueError(
            f"its {member.filename} is compressed. Save it with np.savez, not np.savez_compressed"
        )


def _map_array(file: BinaryIO, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    name, length = member.filename, member.file_size
    _check_stored(member)
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"its {name} has version {version} of the .npy format")
        shape, fortran, dtype = _HEADERS[version](stream)
        header_bytes = stream.tell()
        size, expected = math.prod(shape) * dtype.itemsize, length - header_bytes
        if dtype.kind not in "fiuSU":
            raise ValueError(f"an array of {dtype}, not of numbers or text")
        if size != expected or not size:
            raise ValueError(f"an array of {size} bytes, in a member with room for {expected}")
        blocks = range(0, length, BLOCK)
        for _ in progress.bar(blocks, f"verifying {name}", unit="block", leave=False):
            stream.read(BLOCK)  # at the end, zipfile compares the checksum
    file.seek(member.header_offset + 26)
    start = member.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
    return np.memmap(file, dtype, "r", start + header_bytes, shape, "F" if fortran else "C")
