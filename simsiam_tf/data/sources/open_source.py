"""The registry of sources; opens a source by a specification such as "folder:/my/photos"."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from simsiam_tf.config.places import split_places
from simsiam_tf.data.images.header import MEGAPIXELS
from simsiam_tf.data.sources.addresses import is_url
from simsiam_tf.data.sources.archives import tar_members, zip_members
from simsiam_tf.data.sources.base import Source, SourceOptions, to_colours
from simsiam_tf.data.sources.checked_source import open_members
from simsiam_tf.data.sources.digits import open_digits
from simsiam_tf.data.sources.fashion_mnist import open_fashion_mnist
from simsiam_tf.data.sources.folder import folder_members, specification_of_file
from simsiam_tf.data.sources.hugging_face import hugging_face_members
from simsiam_tf.data.sources.lists import list_members
from simsiam_tf.data.sources.members import Members, join_members
from simsiam_tf.data.sources.tables import parquet_members, tfrecord_members
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError, nearest


def _open_tfds(rest: str, options: SourceOptions) -> Source:
    from simsiam_tf.data.sources import tfds_sets  # takes seconds to import

    name, _, split = rest.partition(":")
    return tfds_sets.open_set(name, split or options.split, options.data_dir)


@dataclasses.dataclass(frozen=True)
class SourceType:
    """A row of `SOURCES`.

    form: form of the specification. open: (the text after "NAME:", options) → a source, or the `Members` of
    a place, which `open_members` then checks and makes a source of. unsplit: the text after "NAME:" → the
    same without a split; None for a type without splits.
    """

    form: str
    open: Callable[[str, SourceOptions], Source | Members]
    unsplit: Callable[[str], str] | None = None


SOURCES = {
    "fashion_mnist": SourceType("fashion_mnist", open_fashion_mnist, lambda rest: ""),
    "digits": SourceType("digits", open_digits, lambda rest: ""),
    "tfds": SourceType("tfds:NAME[:SPLIT]", _open_tfds, lambda rest: rest.partition(":")[0]),
    "folder": SourceType("folder:PATH", lambda rest, _: folder_members(rest)),
    "list": SourceType("list:FILE", lambda rest, o: list_members(rest, o.split), lambda rest: rest),
    "tar": SourceType("tar:PATTERN", lambda rest, _: tar_members(rest)),
    "zip": SourceType("zip:PATTERN", lambda rest, _: zip_members(rest)),
    "parquet": SourceType("parquet:PATTERN[:COLUMN]", lambda rest, _: parquet_members(rest)),
    "tfrecord": SourceType("tfrecord:PATTERN[:FEATURE]", lambda rest, _: tfrecord_members(rest)),
    "hf": SourceType(
        "hf:NAME[:SPLIT]", lambda rest, o: hugging_face_members(rest, o.split),
        lambda rest: rest.partition(":")[0],
    ),
}  # fmt: skip
ALIASES = {name: f"tfds:{name}" for name in ("cifar10", "cifar100", "imagenet2012", "imagenette")}


def full_specification(data: str | os.PathLike) -> str:
    """A specification with its alias replaced, or that of a `Path`. Raises UserError for other types."""
    if isinstance(data, os.PathLike):
        return f"folder:{os.fsdecode(data)}"
    if not isinstance(data, str):
        forms = ", ".join(row.form for row in SOURCES.values())
        raise UserError(f"{str(data)[:100]}: names no data set. Pass one of {forms}, or a path.")
    return ALIASES.get(data, data)


def open_source(
    spec: str | os.PathLike | Source,
    split: str = "train",
    data_dir: str | None = None,
    on_bad_image: str = "error",
    report: Path | None = None,
    max_megapixels: float = MEGAPIXELS,
    check: str = "decode",
    channels: int | None = None,
    background: str = "white",
    pixel_range: str = "auto",
    run: Path | None = None,
    partial_labels: bool = False,
) -> Source:
    """Opens the source that a specification names. Raises UserError where it is missing or unreadable.

    Args:
        spec: as a row of `SOURCES` shows, such as "digits" or "folder:PATH"; several of encoded images are
            separated by commas: "folder:A,tar:B". "cifar10" is short for "tfds:cifar10", a `Path` for
            "folder:PATH". "fashion_mnist", "digits", "tfds:" and "hf:" take a split, as in
            "fashion_mnist:train[:50000]". A `Source` is returned as it is.
        split: the split where the specification names none.
        data_dir: folder of TFDS's sets; its default when None.
        on_bad_image: "error" refuses a set with an image that cannot be decoded; "skip" leaves it out.
        report: JSON file in which such images are named.
        max_megapixels: larger images count as unreadable.
        check: how new and changed images are checked: "decode" each, read its "header"
            alone, or "none".
        channels: 1 makes all images gray, 3 gives all colours, another number is for TIFF and .npy images of
            so many; by default 1 where all images are gray, else 3, or the number that all images have.
        background: the colour that transparent pixels are laid on: "white", "black" or "#rrggbb".
        pixel_range: values of deep pixels (of more than 8 bits) that become 0 and 255: "LOW,HIGH"; "type",
            the limits of their type; "auto", the 0.1 and 99.9 percentiles of a sample of the set.
        run: the work folder of a run that trains on the images; a run that is continued has the images that
            it was begun with (`run_images`).
        partial_labels: whether a set of which only some images are labelled has labels, −1 for the others.
    """
    if isinstance(spec, Source):
        return spec
    options = SourceOptions(
        split, data_dir, on_bad_image, report, max_megapixels, check, channels, background, pixel_range, run,
        partial_labels,
    )  # fmt: skip
    with progress.announced(f"listing the images of {printable_text(str(spec))}"):
        images = list_images(spec, options)
    return images if isinstance(images, Source) else open_members(images, options)


def list_images(spec: str | os.PathLike, options: SourceOptions) -> Source | Members:
    """The images that a specification names; encoded ones as `Members`, before any is read."""
    places = [_open_place(one, options) for one in split_places(full_specification(spec))]
    if isinstance(places[0], Source) and len(places) == 1:
        return to_colours(places[0]) if options.channels == 3 else places[0]
    unfit = [place.name for place in places if isinstance(place, Source)]
    if unfit:
        raise UserError(f"{unfit[0]}: cannot be joined to others. Folders, lists, archives and tables can.")
    return join_members([place for place in places if isinstance(place, Members)])


def _open_place(spec: str, options: SourceOptions) -> Source | Members:
    name, _, rest = spec.partition(":")
    if name in SOURCES:
        return SOURCES[name].open(rest, options)
    path = Path(spec).expanduser()
    forms = [row.form.partition("[")[0] for row in SOURCES.values()]
    fix = nearest(spec, [*forms, *ALIASES])
    if path.is_dir() or is_url(spec):
        fix = f" Pass folder:{spec}."
    elif path.is_file():
        fix = f" Pass {specification_of_file(Path(spec))}."
    raise UserError(f"{spec}: no such data set.{fix}")


def without_split(spec: str | os.PathLike | Source) -> str | None:
    """A specification without its split; None for a type without splits, several places, or a `Source`."""
    if isinstance(spec, Source):
        return None
    spec = full_specification(spec)
    kind, _, rest = spec.partition(":")
    unsplit = SOURCES[kind].unsplit if kind in SOURCES and len(split_places(spec)) == 1 else None
    return f"{kind}:{unsplit(rest)}".rstrip(":") if unsplit else None
