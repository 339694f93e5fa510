"""The registry of sources; opens a source by a specification such as "folder:/my/photos"."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from simsiam_tf.data.images.header_check import MEGAPIXELS
from simsiam_tf.data.sources.base import Source, SourceOptions
from simsiam_tf.data.sources.digits import open_digits
from simsiam_tf.data.sources.fashion_mnist import open_fashion_mnist
from simsiam_tf.data.sources.folder import open_folder
from simsiam_tf.runtime.errors import UserError, nearest


def _open_tfds(rest: str, options: SourceOptions) -> Source:
    from simsiam_tf.data.sources import tfds_sets  # takes seconds to import

    name, _, split = rest.partition(":")
    return tfds_sets.open_set(name, split or options.split, options.data_dir)


@dataclasses.dataclass(frozen=True)
class SourceType:
    """A row of `SOURCES`.

    form: form of the specification. open: (the text after "NAME:", options) → source.
    has_query_split: whether there is a "test" split, from which a monitor takes its queries.
    """

    form: str
    open: Callable[[str, SourceOptions], Source]
    has_query_split: bool = True


SOURCES = {
    "fashion_mnist": SourceType("fashion_mnist", open_fashion_mnist),
    "digits": SourceType("digits", open_digits),
    "tfds": SourceType("tfds:NAME[:SPLIT]", _open_tfds),
    "folder": SourceType("folder:PATH", open_folder, has_query_split=False),
}
ALIASES = {name: f"tfds:{name}" for name in ("cifar10", "cifar100", "imagenet2012", "imagenette")}


def full_specification(data: str | os.PathLike) -> str:
    """A specification without aliases, also for a path. Raises UserError for other types."""
    if isinstance(data, os.PathLike):
        return f"folder:{os.fsdecode(data)}"
    if not isinstance(data, str):
        forms = ", ".join(row.form for row in SOURCES.values())
        raise UserError(f"{str(data)[:100]}: names no data set. Pass one of {forms}, or a path.")
    return ALIASES.get(data, data)


def open_source(
    spec: str | os.PathLike,
    split: str = "train",
    data_dir: str | None = None,
    on_bad_image: str = "error",
    report: Path | None = None,
    max_megapixels: float = MEGAPIXELS,
) -> Source:
    """Opens the source that a specification names. Raises UserError where it is missing or unreadable.

    Args:
        spec: as a row of `SOURCES` shows, such as "digits" or "folder:PATH". All but folders take a split,
            as in "fashion_mnist:train[:50000]". "cifar10" is short for "tfds:cifar10", a `Path` for
            "folder:PATH".
        split: the split where the specification names none.
        data_dir: folder of TFDS's sets; its default when None.
        on_bad_image: "error" refuses a folder with an image that cannot be decoded; "skip" leaves it out.
        report: JSON file with the outcome for every image of a folder, so that an image is not checked again
            while its size and times stay.
        max_megapixels: larger images of a folder count as unreadable.
    """
    spec = full_specification(spec)
    name, _, rest = spec.partition(":")
    if name not in SOURCES:
        forms = [row.form.removesuffix("[:SPLIT]") for row in SOURCES.values()]
        raise UserError(f"{spec}: no such data set.{nearest(spec, [*forms, *ALIASES])}")
    return SOURCES[name].open(rest, SourceOptions(split, data_dir, on_bad_image, report, max_megapixels))


def query_split(spec: str | os.PathLike) -> str | None:
    """The split that a monitor takes its queries from, or None where a set has only one split."""
    row = SOURCES.get(full_specification(spec).partition(":")[0])
    return "test" if row is None or row.has_query_split else None
