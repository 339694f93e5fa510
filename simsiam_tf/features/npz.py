"""Arrays in .npz files: memory-mapped, and never decompressed."""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from simsiam_tf.runtime import progress

BLOCK = 2**24  # bytes verified at a time
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The named arrays that a file has, read-only and memory-mapped, their checksums verified.

    Raises:
        ValueError: an array is compressed, empty, neither numbers nor text, or not as long as its
            shape says. zipfile raises its own errors for damaged files.
    """
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        return {name: _map_array(file, archive, members[name]) for name in names if name in members}


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
