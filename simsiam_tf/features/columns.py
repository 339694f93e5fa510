"""Finds the names and the features of images among the arrays of an archive or the columns of a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError, nearest

BLOCK = 2**22  # numbers read or written at a time
FEATURES = ("features",)  # names that `embed` gives to these columns
NAMES = ("names", "name")


def row_blocks(count: int, width: int = 64) -> Iterator[slice]:
    """Slices of `count` rows of `width` numbers, each of about `BLOCK` numbers."""
    step = max(1, BLOCK // width)
    return (slice(start, start + step) for start in range(0, count, step))


@dataclasses.dataclass(frozen=True)
class Columns:
    """The names of the columns (or arrays) of a file that hold features and names.

    file: the option that names the file, as in "embeddings=x.npz", for messages.
    features, names: names of the two columns; None: those that `embed` gives, or else the only column that
        fits.
    """

    file: str
    features: str | None = None
    names: str | None = None

    def choose_features(self, fitting: Sequence[str], columns: Sequence[str]) -> str | None:
        """The column of features; None if none fits.

        fitting: names of the columns of vectors. columns: names of all columns.

        Raises:
            UserError: the chosen column is missing, or several would do.
        """
        return self._choose("features_column", self.features, FEATURES, fitting, columns)

    def choose_names(self, fitting: Sequence[str], columns: Sequence[str]) -> str | None:
        """The column of names, as `choose_features`. fitting: columns of text with one value an image."""
        return self._choose("names_column", self.names, NAMES, fitting, columns)

    def _choose(
        self,
        option: str,
        chosen: str | None,
        usual: Sequence[str],
        fitting: Sequence[str],
        columns: Sequence[str],
    ) -> str | None:
        if chosen is not None and chosen not in columns:
            fix = nearest(chosen, map(printable_text, columns))
            raise UserError(f"{option}={printable_text(chosen)}: {self.file} has no such column.{fix}")
        candidates = [name for name in usual if name in columns] or fitting
        candidates = candidates if chosen is None else [chosen]
        if len(candidates) > 1 and candidates is fitting:
            shown = ", ".join(map(printable_text, candidates[:12])) + (", …" if candidates[12:] else "")
            raise UserError(
                f"{self.file}: its {option.partition('_')[0]} could be any of {shown}. Choose "
                f"one, as in {option}={printable_text(candidates[0])}."
            )
        return candidates[0] if candidates else None
