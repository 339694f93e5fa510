"""Arrays in .npy format: written in blocks, read memory-mapped."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np


def npy_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """The bytes before an array's numbers."""
    header = io.BytesIO()
    values = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, values)
    return header.getvalue()


def write_npy(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype, blocks: Iterable[np.ndarray]) -> None:
    """Writes an array that its blocks of rows make together, as `dtype`; one block is in memory at a time."""
    file.write(npy_header(shape, dtype))
    for block in blocks:
        file.write(np.ascontiguousarray(block, dtype).data.cast("B"))


def read_npy(path: Path) -> np.ndarray:
    """An array of a file, memory-mapped. Raises ValueError where the file is no array of numbers or text."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError("it is an archive; name it .npz")
    return array
