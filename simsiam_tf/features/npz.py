"""Embeddings in .npz files: arrays "names", "features" and "about", memory-mapped, never decompressed."""

from __future__ import annotations

import json
import math
import os
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from simsiam_tf.runtime import progress
from simsiam_tf.runtime.zip_directory import directory_bytes

BLOCK = 2**24  # bytes verified at a time
DIRECTORY_BYTES = 2**16  # longest table of contents of an archive; that of three arrays has about 200
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def write_npz(file: BinaryIO, names: np.ndarray, features: np.ndarray, about: dict, dtype: np.dtype) -> None:
    """Writes [N] names, [N, F] features as `dtype`, and `about` as JSON."""
    text = np.array([str(name) for name in names])
    np.savez(file, names=text, features=features.astype(dtype, copy=False), about=json.dumps(about))


def read_npz(path: Path) -> tuple[np.ndarray, np.ndarray, dict]:
    """Reads ([N] names, [N, F] features, about), the arrays read-only and their checksums verified.

    Raises:
        ValueError: no archive, or one of many files; an array is missing, compressed, empty, neither numbers
            nor text, or not as long as its shape says. zipfile raises its own errors for damaged files.
    """
    with open(path, "rb") as file:
        if directory_bytes(file) > DIRECTORY_BYTES:
            raise ValueError("its table of contents is longer than that of a few arrays")
        with zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            missing = [key for key in ("names", "features") if key not in members]
            if missing:
                raise ValueError(f"it has no array {missing[0]!r}")
            names, features = (_map_array(file, archive, members[key]) for key in ("names", "features"))
            about = _map_array(file, archive, members["about"]) if "about" in members else np.array("{}")
    if names.dtype.kind == "S":
        names = np.array([os.fsdecode(name) for name in names.tolist()], object)
    elif names.dtype.kind in "iu":
        names = names.astype(str)
    if about.size != 1 or about.dtype.kind not in "SU" or about.nbytes > 2**20:
        raise ValueError("its 'about' is not a short text")
    return names, features, json.loads(about.item())


def _map_array(file: BinaryIO, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    name, length = member.filename, member.file_size
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != length:
        raise ValueError(f"its {name} is compressed. Save it with np.savez, not np.savez_compressed")
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
