"""Pictures that annotations refer to by the names of their files."""

from __future__ import annotations

import collections
import dataclasses
import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from simsiam_tf.data.images.header import read_header
from simsiam_tf.data.images.render import PixelRule, render
from simsiam_tf.data.sources.base import SourceOptions, lines, short_digest
from simsiam_tf.data.sources.checked_source import check_members, range_of
from simsiam_tf.data.sources.folder import local_members
from simsiam_tf.data.sources.members import Members
from simsiam_tf.data.sources.unreadable import report_unreadable
from simsiam_tf.dense_tasks.annotations import AnnotatedSet
from simsiam_tf.dense_tasks.subsets import subset_of
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

STRICT = (
    SourceOptions()
)  # an image that cannot be used is an error, and all are decoded to see if they can be


def existing_folder(path: str, spec: str) -> Path:
    """A folder of this machine. Raises UserError where it is missing."""
    folder = Path(path).expanduser().absolute()
    if path and folder.is_dir():
        return folder
    before, _, last = path.rpartition(":")
    if before and Path(before).expanduser().is_dir():
        raise UserError(f"{spec}: {last!r} is no split. Pass train or test.")
    raise UserError(f"{spec}: no such folder: {printable_text(path)}.")


def picture_files(folder: Path) -> Members:
    """The images of a folder and of the folders within, by listing; `names` are relative to it."""
    return local_members(str(folder), printable_text(str(folder)), collections.Counter())


def chosen_files(members: Members, rows: np.ndarray, names: Sequence[str], part: str) -> Members:
    """The files in these rows, in this order.

    rows: int64 [n], −1 for a file that is missing. names: n names, of which those of missing files are used.
    part: name of these files as a part of the folder, for the cache of their records; the records of all
    files of a folder are those of other commands.
    """
    found = rows >= 0
    chosen = [members.names[row] if row >= 0 else name for row, name in zip(rows, names, strict=True)]

    def read(i: int) -> bytes:
        if not found[i]:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), chosen[i])
        return members.read(int(rows[i]))

    all_files = len(rows) == len(members.names) and len(np.unique(rows[found])) == len(rows)
    return dataclasses.replace(
        members, names=tuple(chosen), states=np.where(found[:, None], members.states[rows], 0), read=read,
        key=members.key if all_files else f"{members.key}\0{part}", labels=None, class_names=(), read_op=None,
    )  # fmt: skip


def files_digest(members: Members, times: bool = False) -> str:
    """A digest of the names and sizes of files; with `times` of the times of their last change, too."""
    return short_digest(*lines(members.names), members.states[:, : 3 if times else 1].tobytes())


def check_pictures(
    members: Members, sizes: np.ndarray, annotated: str, options: SourceOptions
) -> tuple[dict[int, str], np.ndarray, dict[str, str]]:
    """Checks pictures as options.check says, and compares their sizes with those in their annotations.

    sizes: int64 [n, 2], width and height. annotated: what gives these, for messages.

    Returns:
        Number → reason of the pictures that cannot be used; a digest of each picture, b"" where unknown; how
        they become pixels, the arguments of `PixelRule.from_options`.
    """
    records, _ = check_members(members, options)
    rows = records.rows
    bad = {int(i): records.reasons[rows["reason"][i] - 1] for i in np.flatnonzero(rows["reason"])}
    bad |= {int(i): os.strerror(errno.ENOENT) for i in np.flatnonzero(~members.states.any(axis=1))}
    stored = np.stack([rows["width"], rows["height"]], axis=-1)
    upright = np.where(rows["orientation"][:, None] > 4, stored[:, ::-1], stored)
    known = (rows["level"] > 0) & (rows["reason"] == 0)
    for i in np.flatnonzero(known & (upright != sizes).any(axis=1)).tolist():
        turned = (stored[i] == sizes[i]).all()
        bad.setdefault(i, _size_problem(upright[i], sizes[i], annotated, bool(turned)))
    good = np.delete(np.arange(len(rows)), list(bad))
    pixel_range = range_of(members, good, rows[good], 3, options, printable_text(members.name))
    return bad, rows["digest"], PixelRule(3, options.background, pixel_range).options()


def leave_out(images: AnnotatedSet, bad: dict[int, tuple[str, str]], options: SourceOptions) -> AnnotatedSet:
    """The images without those that cannot be used.

    bad: id → (name of the file, why it cannot be used).

    Raises:
        UserError: there are such images, and options.on_bad_image is "error"; or no other is left.
    """
    report_unreadable(dict(bad.values()), images.size, images.name, options, problem="cannot be used")
    if len(bad) == images.size:
        raise UserError(f"{images.name}: not one of its images can be used.")
    kept = np.delete(np.arange(images.size), list(bad))
    return subset_of(images, kept, images.name) if bad else images


def read_picture(
    members: Members,
    row: int,
    width: int,
    height: int,
    annotated: str,
    checked: bool,
    pixels: Mapping[str, str],
) -> np.ndarray:
    """A picture as a person sees it, uint8 [height, width, 3], where its annotations give it this size.

    annotated: what gives it the size, for messages. checked: whether its header is known to be safe. pixels:
    how it becomes pixels, arguments of `PixelRule.from_options`.

    Raises:
        OSError: the file cannot be read, or has changed since it was listed.
        ValueError: it is damaged, or of another size.
    """
    # NOTE: annotations count as those of the upright picture, as in Detectron2 and in tools that run in a
    # browser. The size shows where they are of the stored pixels, but for a turn by 180° or a mirror image.
    path = printable_text(os.path.join(str(members.root), members.names[row]))
    data = members.read(row)
    try:
        if not checked:
            read_header(data)
        image = render(data, PixelRule.from_options(3, **pixels))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if image.shape[:2] == (height, width):
        return image
    header = read_header(data)
    seen, stored = np.array(image.shape[1::-1]), (header.width, header.height)
    turned = header.orientation > 4 and stored == (width, height)
    raise ValueError(f"{path}: {_size_problem(seen, np.array([width, height]), annotated, turned)}")


def _size_problem(seen: np.ndarray, wanted: np.ndarray, annotated: str, turned: bool) -> str:
    """What to say of a picture of another width and height. turned: the wanted ones are the stored ones."""
    fix = "Scale one to the other."
    if turned:
        fix = "That is its size without its EXIF orientation; remove it: exiftool -Orientation= FILE"
    (w, h), (width, height) = seen, wanted
    return f"is {w}×{h} pixels (width×height), but {width}×{height} in {annotated}. {fix}"
