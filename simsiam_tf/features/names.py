"""Names of images: in the memory of Arrow, in a text file, or numbers of rows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError


class ArrowNames:
    """Names of N images in Arrow's memory, which take half the memory of Python's strings.

    Indexed as an array of strings; only the names that are indexed become strings.

    chunks: `pyarrow.DictionaryArray`s of text, bytes or whole numbers, without missing values.
    """

    def __init__(self, chunks: Sequence[Any]) -> None:
        self._chunks = list(chunks)
        self._starts = np.cumsum([0, *map(len, self._chunks)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, rows: Any) -> Any:
        """A string for one row; an array of strings for a slice or an array of rows."""
        if isinstance(rows, int | np.integer):
            row = range(len(self))[rows]
            chunk = int(np.searchsorted(self._starts, row, "right")) - 1
            return _text(self._chunks[chunk][int(row - self._starts[chunk])].as_py())
        chosen = np.arange(len(self))[rows]
        return np.array([self[row] for row in chosen.ravel()], object).reshape(chosen.shape)

    def __iter__(self) -> Iterator[str]:
        for chunk in self._chunks:
            words = [_text(word) for word in chunk.dictionary.to_pylist()]
            yield from (words[i] for i in chunk.indices.to_pylist())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.tolist(), dtype or object)

    def tolist(self) -> list[str]:
        """All names as strings."""
        return list(self)

    def rows(self, name: str) -> np.ndarray:
        """The rows with this name, int64 [n], ascending."""
        import pyarrow as pa
        import pyarrow.compute as pc

        rows = [np.zeros(0, np.int64)]
        for start, chunk in zip(self._starts, self._chunks, strict=False):
            words = chunk.dictionary
            try:
                value: Any = os.fsencode(name) if pa.types.is_binary(words.type) else name
                value = pa.scalar(int(name) if pa.types.is_integer(words.type) else value, words.type)
            except (ValueError, pa.ArrowInvalid):  # such as a name that is no number
                continue
            word = pc.index(words, value).as_py()  # pyright: ignore[reportAttributeAccessIssue]
            if word >= 0:
                rows.append(start + np.flatnonzero(chunk.indices.to_numpy() == word))
        return np.concatenate(rows)


Names = np.ndarray | ArrowNames  # of N images, in text


def _text(value: Any) -> str:
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)


def rows_named(names: Names, name: str) -> np.ndarray:
    """The rows with a name, also as `printable_text` shows it: int64 [n], ascending."""
    rows = names.rows(name) if isinstance(names, ArrowNames) else np.flatnonzero(names == name)
    if not len(rows) and "\\" in name:
        rows = np.flatnonzero([printable_text(str(n)) == name for n in names])
    return rows


def row_numbers(count: int) -> np.ndarray:
    """Names of images that have none: "0", "1", …"""
    return np.arange(count).astype(str)


def read_names(path: str | Path) -> np.ndarray:
    """The names in a text file, a line each. Raises UserError where it cannot be read."""
    text = read_text(path, f"names={path}")
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    return np.array(lines, object)


def read_text(path: str | Path, option: str) -> str:
    """The text of a file in UTF-8, other bytes escaped. Raises UserError where it cannot be read.

    option: the option that names the file, with its value, for the message.
    """
    try:
        return Path(path).expanduser().read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise UserError(f"{option}: cannot be read ({error.strerror}).") from error
