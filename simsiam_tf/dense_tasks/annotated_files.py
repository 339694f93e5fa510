"""Pictures that annotations refer to by the names of their files."""

from __future__ import annotations

import collections
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from simsiam_tf.data.images.header import read_header
from simsiam_tf.data.images.render import render
from simsiam_tf.data.sources.base import lines, short_digest
from simsiam_tf.data.sources.folder import local_members
from simsiam_tf.data.sources.members import Members
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError


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


def files_digest(members: Members, rows: Iterable[int], times: bool = False) -> str:
    """A digest of the names and sizes of files; with `times` of the times of their last change, too."""
    rows = np.fromiter(rows, np.int64)
    names = [members.names[i] for i in rows]
    return short_digest(*lines(names), members.states[rows, : 2 if times else 1].tobytes())


def read_picture(members: Members, row: int, width: int, height: int, annotated: str) -> np.ndarray:
    """A picture as a person sees it, uint8 [height, width, 3], where its annotations give it this size.

    annotated: what gives it the size, for messages.

    Raises:
        OSError: the file cannot be read, or has changed since it was listed.
        ValueError: it is damaged, or of another size.
    """
    # NOTE: annotations count as those of the upright picture, as in Detectron2 and in tools that run in a
    # browser. The size shows where they are of the stored pixels, but for a turn by 180° or a mirror image.
    path = printable_text(os.path.join(str(members.root), members.names[row]))
    data = members.read(row)
    try:
        header = read_header(data)
        image = render(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if image.shape[:2] == (height, width):
        return image
    fix = "Scale one to the other."
    if header.orientation > 4 and (header.width, header.height) == (width, height):
        fix = "That is its size without its EXIF orientation; remove it: exiftool -Orientation= FILE"
    seen = f"{image.shape[1]}×{image.shape[0]}"
    raise ValueError(f"{path}: is {seen} pixels (width×height), but {width}×{height} in {annotated}. {fix}")
