"""Which arrays of an archive, or columns of a table, are the names and the features of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError, nearest

BLOCK = 2**22  # numbers read or written at a time
FEATURES = ("features",)  # what `embed` calls them
NAMES = ("names", "name")


def row_blocks(count: int, width: int = 64) -> Iterator[slice]:
    """Slices of `count` rows of `width` numbers, each of about `BLOCK` numbers."""
    step = max(1, BLOCK // width)
    return (slice(start, start + step) for start in range(0, count, step))


@dataclasses.dataclass(frozen=True)
class Columns:
    """The choice of columns (or arrays) of a file.

    file: the option that names the file, as in "embeddings=x.npz", for messages. features, names: their
    names; None: what `embed` calls them, or else the one that fits.
    """

    file: str
    features: str | None = None
    names: str | None = None

    def features_of(self, fitting: Sequence[str], columns: Sequence[str]) -> str | None:
        """The column of features. fitting: those of vectors. columns: all. None: none fits."""
        return self._choose("features_column", self.features, FEATURES, fitting, columns)

    def names_of(self, fitting: Sequence[str], columns: Sequence[str]) -> str | None:
        """The column of names. fitting: those of text, one for each image. columns: all. None: none fits."""
        return self._choose("names_column", self.names, NAMES, fitting, columns)

    def _choose(
        self,
        option: str,
        chosen: str | None,
        usual: Sequence[str],
        fitting: Sequence[str],
        columns: Sequence[str],
    ) -> str | None:
        """Raises UserError where the chosen one is missing, or several would do."""
        if chosen is not None and chosen not in columns:
            fix = nearest(chosen, map(printable_text, columns))
            raise UserError(f"{option}={printable_text(chosen)}: {self.file} has no such column.{fix}")
        known = [chosen] if chosen is not None else [name for name in usual if name in columns] or fitting
        if len(known) > 1 and known is fitting:
            shown = ", ".join(map(printable_text, known[:12])) + (", …" if known[12:] else "")
            raise UserError(
                f"{self.file}: its {option.partition('_')[0]} could be any of {shown}. Choose "
                f"one, as in {option}={printable_text(known[0])}."
            )
        return known[0] if known else None
