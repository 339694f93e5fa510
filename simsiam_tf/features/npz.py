"""Arrays in .npz files: mapped where they lie, written a block at a time, and never expanded."""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from simsiam_tf.features import mapped_arrays
from simsiam_tf.runtime import progress

BLOCK = 2**24  # bytes that are verified or written at a time
DIRECTORY_BYTES = 2**16  # of an archive's table of contents; of three arrays it takes about 200


def read(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Those of the named arrays that a file has, read-only and mapped; their checksums are verified.

    Raises:
        ValueError: damaged, compressed, or an array that is not what the file has room for.
    """
    with open(path, "rb") as file:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        return {name: _array(file, members[name]) for name in names if name in members}


def _check_directory(file: BinaryIO) -> None:
    """The length of the table of contents (APPNOTE 4.3.14 to 4.3.16), which zipfile reads whole."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 98))
    tail = file.read().rjust(98, b"\0")
    record, locator, end = tail[:56], tail[56:76], tail[76:]  # the first two only of large archives
    if end[:4] != b"PK\5\6" or end[20:] != b"\0\0":
        raise ValueError("it is no .npz file, or cut off")
    length = struct.unpack("<I", end[12:16])[0]
    if locator[:4] == b"PK\6\7":
        at = struct.unpack("<Q", locator[8:16])[0]
        length = struct.unpack("<Q", record[40:48])[0] if at == size - 98 else DIRECTORY_BYTES + 1
    if length > DIRECTORY_BYTES:
        raise ValueError("its table of contents is longer than that of a few arrays")


def _array(file: BinaryIO, member: zipfile.ZipInfo) -> np.ndarray:
    """An array whose numbers lie in the file as they are."""
    name, length = member.filename, member.file_size
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != length or member.flag_bits & 1:
        raise ValueError(f"its {name} is compressed. Save it with np.savez, not np.savez_compressed")
    file.seek(member.header_offset)
    header = file.read(30)
    if header[:4] != b"PK\3\4" or len(header) < 30:
        raise ValueError(f"its {name} is damaged")
    start = member.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
    file.seek(start)
    checksum, blocks = 0, range(0, length, BLOCK)
    for at in progress.bar(blocks, f"verifying {name}", unit="block", leave=False):
        checksum = zlib.crc32(file.read(min(BLOCK, length - at)), checksum)
    if checksum != member.CRC:
        raise ValueError(f"its {name} is damaged: its checksum differs")
    file.seek(start)
    return mapped_arrays.map_array(file, length)


def write(file: BinaryIO, members: dict[str, tuple[np.ndarray, np.dtype]]) -> None:
    """Writes arrays, each with the type that it is to have, as np.savez does."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, (array, dtype) in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                description = mapped_arrays.description(array.shape, dtype)
                np.lib.format.write_array_header_1_0(member, description)
                rows = array if array.ndim else array[None]
                step = max(1, BLOCK // (dtype.itemsize * math.prod(rows.shape[1:])))
                for start in range(0, len(rows), step):
                    member.write(np.ascontiguousarray(rows[start : start + step], dtype).tobytes())
