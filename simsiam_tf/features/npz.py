"""Arrays in .npz files: memory-mapped, written a block at a time, never decompressed."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from simsiam_tf.runtime import progress

BLOCK = 2**24  # bytes verified or written at a time
DIRECTORY_BYTES = 2**16  # most in an archive's central directory; three arrays take about 200
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The named arrays that a file has, read-only and memory-mapped, their checksums verified.

    Raises:
        ValueError: an array is compressed, empty, neither numbers nor text, or not as long as its
            shape says. zipfile raises its own errors for damaged files.
    """
    with open(path, "rb") as file:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            return {name: _map_array(file, archive, members[name]) for name in names if name in members}


def _check_directory(file: BinaryIO) -> None:
    """Bounds the central directory (APPNOTE 4.3.14 to 4.3.16), which zipfile reads into memory at once."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 98))
    tail = file.read().rjust(98, b"\0")
    record, locator, end = tail[:56], tail[56:76], tail[76:]  # the first two only in large archives
    if end[:4] != b"PK\5\6" or end[20:] != b"\0\0":
        raise ValueError("it is no .npz file, or cut off")
    length = struct.unpack("<I", end[12:16])[0]
    if locator[:4] == b"PK\6\7":
        at = struct.unpack("<Q", locator[8:16])[0]
        length = struct.unpack("<Q", record[40:48])[0] if at == size - 98 else DIRECTORY_BYTES + 1
    if length > DIRECTORY_BYTES:
        raise ValueError("its table of contents is longer than that of a few arrays")


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


def write_npz(file: BinaryIO, arrays: dict[str, tuple[np.ndarray, np.dtype]]) -> None:
    """Writes each array as its dtype, in the format of np.savez."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, (array, dtype) in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                header = {"descr": dtype.str, "fortran_order": False, "shape": array.shape}
                np.lib.format.write_array_header_1_0(member, header)
                rows = array if array.ndim else array[None]
                step = max(1, BLOCK // (dtype.itemsize * math.prod(rows.shape[1:])))
                for start in range(0, len(rows), step):
                    member.write(np.ascontiguousarray(rows[start : start + step], dtype).tobytes())
