"""Arrays and long lists of texts in a file, which is complete or not there.

The texts lie joined, each ended by a zero: a million names take a third of the memory of as many strings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from simsiam_tf.runtime.atomic_files import atomic_file

TEXTS = ".texts"  # ends the keys of arrays of texts in a file
PIECE = 2**16  # texts encoded or decoded at a time


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays for `read_arrays`, atomically. Arrays of objects hold texts."""
    stored = {}
    for key, array in arrays.items():
        if array.dtype == object:
            key, array = key + TEXTS, np.frombuffer(b"".join(joined_pieces(array)), np.uint8)
        stored[key] = array
    with atomic_file(path) as file:
        np.savez(file, **stored)


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays in a file; None where it is missing or damaged."""
    try:
        return {
            key.removesuffix(TEXTS): np.array(list(split_texts(array)), object)
            if key.endswith(TEXTS)
            else array
            for key, array in _load(path).items()
        }
    except Exception:  # noqa: BLE001 - zip and NumPy raise many types for a damaged file
        return None


def read_joined(path: Path) -> dict[str, np.ndarray] | None:
    """As `read_arrays`, with texts joined: uint8 [bytes]."""
    try:
        return {key.removesuffix(TEXTS): array for key, array in _load(path).items()}
    except Exception:  # noqa: BLE001 - as above
        return None


def _load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    for key, array in arrays.items():
        if key.endswith(TEXTS) and (array.dtype != np.uint8 or array.ndim != 1):
            raise ValueError(f"{key}: no texts")
    return arrays


def joined_pieces(texts: Sequence[str] | np.ndarray) -> Iterator[bytes]:
    """Texts, each ended by a zero, as bytes; many in each piece."""
    for start in range(0, len(texts), PIECE):
        yield os.fsencode("\0".join([*texts[start : start + PIECE], ""]))


def split_texts(joined: np.ndarray) -> Iterator[str]:
    """The texts of `joined_pieces`, one at a time."""
    ends = np.flatnonzero(joined == 0) + 1
    for start in range(0, len(ends), PIECE):
        first, last = ends[start - 1] if start else 0, ends[min(start + PIECE, len(ends)) - 1]
        yield from os.fsdecode(joined[first:last].tobytes()).split("\0")[:-1]


def are_joined(joined: np.ndarray, texts: Sequence[str]) -> bool:
    """Whether `joined` holds exactly these texts."""
    at = 0
    for piece in joined_pieces(texts):
        if joined[at : at + len(piece)].tobytes() != piece:
            return False
        at += len(piece)
    return at == len(joined)
