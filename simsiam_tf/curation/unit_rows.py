"""Features as rows of length 1, checked once and then read in blocks, also of memory-mapped files."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np

from simsiam_tf.runtime.display_text import counted, printable_text
from simsiam_tf.runtime.errors import UserError

BLOCK = 2**21  # numbers that are read and scaled at a time


class UnitRows:
    """Features [N, F] whose rows are scaled to length 1 when they are read.

    Memory holds one number a row and the blocks in use.

    Args:
        features: numbers [N, F] with N ≥ 2, memory-mapped or not.
        name: name of the argument, for messages. names: names of the rows, for messages.

    Raises:
        UserError: another shape or type, fewer than 2 rows, a number that is not finite, or a row of zeros.
    """

    def __init__(
        self, features: np.ndarray, name: str = "features", names: Sequence[str] | np.ndarray | None = None
    ) -> None:
        self.features = features = np.asarray(features)
        if features.ndim != 2 or features.dtype.kind not in "fiu" or not features.shape[1]:
            raise UserError(
                f"`{name}`: are {features.dtype} of shape {features.shape}. Pass numbers [rows, features]."
            )
        if len(features) < 2:
            raise UserError(f"`{name}`: have {counted(len(features), 'row')}. Pass at least 2.")
        self.step = max(1, BLOCK // features.shape[1])
        self.lengths = np.empty((len(features), 1))
        for start in range(0, len(features), self.step):
            block = np.asarray(features[start : start + self.step], np.float64)
            # Rows are divided by their largest number first, so that no square leaves float64's range.
            largest = np.abs(block).max(axis=1, keepdims=True)
            bad = ~(np.isfinite(largest) & (largest > 0))
            if bad.any():
                row, value = start + int(bad.argmax()), largest[bad.argmax(), 0]
                problem = "is all zeros, and has no direction" if value == 0 else "has a NaN or an infinity"
                shown = f"row {row}" if names is None else f"row {row} ({printable_text(str(names[row]))})"
                raise UserError(f"`{name}`: {shown} {problem}. Leave it out, or embed that image again.")
            block = block / largest  # not in place: `block` may be the caller's array
            squares = np.einsum("nf,nf->n", block, block)[:, None]
            self.lengths[start : start + self.step] = largest * np.sqrt(squares)

    def __len__(self) -> int:
        return len(self.features)

    @property
    def width(self) -> int:
        """F, the numbers of a row."""
        return self.features.shape[1]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """float32 [n, F] of length 1: a slice of rows, or rows by their numbers."""
        if isinstance(rows, slice):
            return (self.features[rows] / self.lengths[rows]).astype(np.float32)
        unit = np.empty((len(rows), self.width), np.float32)
        for start in range(0, len(rows), self.step):  # so that only the result is as large as the rows
            part = slice(start, start + self.step)
            unit[part] = self.features[rows[part]] / self.lengths[rows[part]]
        return unit

    def take(self, rows: np.ndarray) -> UnitRows:
        """Some of the rows, read into memory."""
        chosen = copy.copy(self)
        chosen.features, chosen.lengths = self.features[rows], self.lengths[rows]
        return chosen

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """(slice, float32 [n, F] of length 1) of all rows, a block at a time."""
        for start in range(0, len(self), self.step):
            rows = slice(start, min(start + self.step, len(self)))
            yield rows, self[rows]

    def cosines(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Cosines of pairs of rows: int [n], int [n] → float32 [n]."""
        result = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), self.step):
            pairs = slice(start, start + self.step)
            result[pairs] = np.einsum("nf,nf->n", self[rows[pairs]], self[others[pairs]])
        return np.clip(result, -1, 1)  # rounding leads beyond


def as_unit_rows(features: np.ndarray | UnitRows, name: str = "features") -> UnitRows:
    """The features as `UnitRows`; checked where they are an array."""
    return features if isinstance(features, UnitRows) else UnitRows(features, name)


def check_values(values: Sequence | np.ndarray | None, rows: int, name: str) -> np.ndarray | None:
    """One value for each row as an array [N], or None. Raises UserError for another shape or a NaN."""
    if values is None:
        return None
    array = np.asarray(values)
    if array.shape != (rows,):
        raise UserError(f"`{name}`: has shape {array.shape}. Pass one value for each of the {rows} rows.")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise UserError(f"`{name}`: row {int(np.isnan(array).argmax())} is NaN. Pass a number.")
    return array


def check_count(value: int, least: int, name: str) -> None:
    """Raises UserError for a number below the least that makes sense."""
    if value < least:
        raise UserError(f"{name}={value}: must be at least {least}.")
