"""NumPy arrays that lie within files: mapped where they lie, never read whole."""

from __future__ import annotations

import math
from typing import BinaryIO

import numpy as np

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def map_array(file: BinaryIO, length: int) -> np.ndarray:
    """The array in the .npy format whose `length` bytes begin at the file's position, read-only.

    Raises:
        ValueError: none is there, or it is empty, longer or shorter, or neither of numbers nor of text.
    """
    start = file.tell()
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of the .npy format")
    shape, fortran, dtype = _HEADERS[version](file)
    if dtype.kind not in "fiuSU":
        raise ValueError(f"an array of {dtype}, not of numbers or text")
    size, held = math.prod(shape) * dtype.itemsize, length - (file.tell() - start)
    if size != held or not size:
        raise ValueError(f"an array of {size} bytes, where {held} are")
    return np.memmap(file, dtype, "r", file.tell(), shape, "F" if fortran else "C")


def description(shape: tuple[int, ...], dtype: np.dtype) -> dict:
    """What `np.lib.format.write_array_header_1_0` writes before an array of this kind."""
    return {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
