"""Pictures with their features, names, places and labels, for the command `curate`."""

from __future__ import annotations

import dataclasses
import functools
import os
import posixpath
from typing import Any

import numpy as np

from simsiam_tf.config.places import split_places
from simsiam_tf.curation.unit_rows import UnitRows
from simsiam_tf.data import Source, open_source, subset
from simsiam_tf.data.sources.addresses import absolute, is_url
from simsiam_tf.features.embedding_file import Embeddings
from simsiam_tf.runtime.display_text import as_text, printable_text
from simsiam_tf.runtime.errors import UserError

FOLDER_LABELS = {"folder", "tar", "zip"}  # kinds of places whose labels are names of folders


@dataclasses.dataclass(frozen=True)
class PictureSet:
    """N pictures with features.

    names: [N]. features: [N, F], may be memory-mapped. places: [N], the path or URL of each picture's file;
    None where pictures are not files of their own, as in an archive. labels: [N], "" for pictures without a
    label; None where no picture has one. source: the pictures, in this order; None where they cannot be read.
    about: as `Embeddings.about`.
    """

    names: np.ndarray
    features: np.ndarray
    places: np.ndarray | None = None
    labels: np.ndarray | None = None
    source: Source | None = None
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    @functools.cached_property
    def rows(self) -> UnitRows:
        """The features as rows of length 1. Raises UserError, which names the picture, where one has none."""
        return UnitRows(self.features, names=self.names)

    def take(self, rows: np.ndarray) -> PictureSet:
        """Some of the pictures, by ascending rows; features are read into memory unless all are taken."""
        if len(rows) == len(self):
            return self
        places, labels = (part if part is None else part[rows] for part in (self.places, self.labels))
        source = self.source and subset(self.source, rows, self.source.name)
        return PictureSet(self.names[rows], self.features[rows], places, labels, source, self.about)


def picture_set(embeddings: Embeddings, source: Source | None = None) -> PictureSet:
    """The pictures of embeddings.

    source: a source with these pictures, in any order, and perhaps others; None: they cannot be read.

    Raises:
        UserError: the source lacks one of the embedded pictures.
    """
    names = np.asarray(embeddings.names, object)
    if source is None:
        places = names if all(is_url(n) or os.path.isabs(n) for n in names) else None
        return PictureSet(names, embeddings.features, places, about=embeddings.about)
    listed = getattr(source, "names", None) or [str(i) for i in range(source.size)]
    row = {as_text(name): i for i, name in enumerate(listed)} | {name: i for i, name in enumerate(listed)}
    missing = [name for name in names if name not in row]
    if missing:
        raise UserError(
            f"data={printable_text(source.name)}: lacks {len(missing)} of the {len(names)} embedded "
            f"pictures, such as {printable_text(missing[0])}. Pass the place that they were embedded from."
        )
    ids = np.array([row[name] for name in names])
    if len(ids) != source.size or (ids != np.arange(source.size)).any():
        source = subset(source, ids, source.name)
    return PictureSet(
        names,
        embeddings.features,
        _places(source, [listed[i] for i in ids]),
        _labels(source),
        source,
        embeddings.about,
    )


def open_pictures(data: str, **options: Any) -> Source:
    """Opens pictures. A list may label only some of them; names of folders are labels of all or of none.

    The latter is as in trainings: a folder's name is no label that somebody gave a picture on looking at it.
    """
    kinds = {place.partition(":")[0] for place in split_places(data)}
    return open_source(data, partial_labels=not kinds & FOLDER_LABELS, **options)


def open_recorded(about: dict[str, Any], **options: Any) -> Source | None:
    """Opens the pictures that a record of embeddings names; None where they cannot be opened."""
    data = about.get("data")
    if not isinstance(data, str):
        return None
    try:
        options = {**recorded_pixels(about), **options, "on_bad_image": "skip"}
        return open_pictures(data, **options)
    except (UserError, OSError):
        return None


def recorded_pixels(about: dict[str, Any]) -> dict[str, str]:
    """The options by which embedded pictures were decoded: arguments of `data.open_source`."""
    recorded = about.get("pixels")
    names = ("background", "pixel_range")
    return {name: recorded[name] for name in names if name in recorded} if isinstance(recorded, dict) else {}


def _places(source: Source, names: list[str]) -> np.ndarray | None:
    """The path or URL of each picture of one folder or one list; None for any other source."""
    kind, _, address = source.name.partition(":")
    if kind not in ("folder", "list") or len(split_places(source.name)) > 1:
        return None
    root = absolute(address) if kind == "folder" else posixpath.dirname(absolute(address))
    return np.array([name if is_url(name) else posixpath.join(root, name) for name in names], object)


def _labels(source: Source) -> np.ndarray | None:
    if source.labels is None:
        return None
    labels, classes = np.asarray(source.labels[np.arange(source.size)]), source.class_names
    words = np.array([*(classes or map(str, range(1 + int(labels.max(initial=0))))), ""], object)
    return words[labels]  # −1 reads the last, ""
