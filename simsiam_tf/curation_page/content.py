"""What the page and the table show of a set of images: names, points, columns, neighbours, galleries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Categories:
    """A column of categories, such as labels or clusters.

    codes: int [N], numbers of the categories, −1 for a picture without one. names: of the categories.
    """

    title: str
    codes: np.ndarray
    names: Sequence[str]

    def __post_init__(self) -> None:
        codes = np.asarray(self.codes)
        if codes.dtype.kind not in "iu" or codes.ndim != 1:
            raise ValueError(f"codes of {self.title!r} must be integers [N]. Received: {codes.dtype}")
        if len(codes) and not (codes.min() >= -1 and codes.max() < len(self.names)):
            raise ValueError(
                f"codes of {self.title!r} must be from -1 to {len(self.names) - 1}. "
                f"Received: {codes.min()} to {codes.max()}"
            )

    def __len__(self) -> int:
        return len(self.codes)


@dataclasses.dataclass(frozen=True)
class Numbers:
    """A column of numbers, such as outlier scores.

    values: float [N], NaN for a picture without one. about: a sentence on what a high value means.
    """

    title: str
    values: np.ndarray
    about: str = ""

    def __len__(self) -> int:
        return len(self.values)


@dataclasses.dataclass(frozen=True)
class PictureGroup:
    """Pictures of a gallery that belong together, in order.

    rows: int [n], rows of the set. caption: of the group. marks: rows that are marked, such as the picture to
    keep of duplicates. notes: a short text under each picture, as many as rows; none where empty.
    """

    rows: Sequence[int] | np.ndarray
    caption: str = ""
    marks: Sequence[int] | np.ndarray = ()
    notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Gallery:
    """An answer to show.

    about: what it means, and how its pictures were chosen. mark: the word on marked pictures. list_file: the
    list beside the page that belongs to it, relative to the page. list_about: what that list holds.
    """

    title: str
    about: str
    groups: Sequence[PictureGroup]
    mark: str = "kept"
    list_file: str = ""
    list_about: str = ""


@dataclasses.dataclass(frozen=True)
class CurationContent:
    """A set of N images, and what is known of them.

    Args:
        names: [N] texts, different from each other, as `Members.names`; may hold undecodable bytes.
        points: float [N, 2], places on the map.
        thumbnail: row → a JPEG, PNG or WebP, or None where the picture cannot be read.
        columns: what the map is coloured by; the first is chosen at first.
        neighbours: int [N, k], rows of the nearest others, the nearest first; −1 for none.
        cosines: float [N, k], of the neighbours.
        galleries: in the order of the page.
        title, subtitle: head of the page. projection: how the points were made, such as "UMAP".
        list_names: [N] texts that a list takes for the pictures, such as absolute paths; names where None.

    Raises:
        ValueError: lengths or rows that do not fit.
    """

    names: Sequence[str]
    points: np.ndarray
    thumbnail: Callable[[int], bytes | None]
    columns: Sequence[Categories | Numbers] = ()
    neighbours: np.ndarray | None = None
    cosines: np.ndarray | None = None
    galleries: Sequence[Gallery] = ()
    title: str = "Curation"
    subtitle: str = ""
    projection: str = ""
    list_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        count = len(self.names)
        if np.shape(self.points) != (count, 2) or not np.isfinite(self.points).all():
            raise ValueError(f"points must be finite, [{count}, 2]. Received: {np.shape(self.points)}")
        for what in (*self.columns, *([] if self.list_names is None else [self.list_names])):
            if len(what) != count:
                title = getattr(what, "title", "list_names")
                raise ValueError(f"{title} must have {count} rows. Received: {len(what)}")
        titles = [column.title for column in self.columns]
        if len(set(titles)) < len(titles):
            raise ValueError(f"titles of columns must differ. Received: {titles}")
        near = np.zeros((count, 0), int) if self.neighbours is None else np.asarray(self.neighbours)
        if near.ndim != 2 or len(near) != count or (near.size and not -1 <= near.min() <= near.max() < count):
            raise ValueError(f"neighbours must be rows [{count}, k]. Received: {near.shape}")
        if self.cosines is not None and np.shape(self.cosines) != near.shape:
            raise ValueError(f"cosines must be {near.shape}. Received: {np.shape(self.cosines)}")
        for gallery in self.galleries:
            for group in gallery.groups:
                rows = np.asarray(group.rows, int)
                if rows.size and not 0 <= rows.min() <= rows.max() < count:
                    raise ValueError(f"{gallery.title}: rows must be in [0, {count}). Received: {rows}")
                if len(group.notes) not in (0, len(rows)):
                    raise ValueError(f"{gallery.title}: {len(group.notes)} notes for {len(rows)} rows")

    @property
    def lists(self) -> Sequence[str]:
        """[N] texts that a list takes for the pictures."""
        return self.names if self.list_names is None else self.list_names

    def gallery_rows(self) -> np.ndarray:
        """int, the rows of all galleries in their order, each once."""
        rows = [np.asarray(group.rows, np.int64) for gallery in self.galleries for group in gallery.groups]
        every = np.concatenate(rows) if rows else np.zeros(0, np.int64)
        return every[np.sort(np.unique(every, return_index=True)[1])]
