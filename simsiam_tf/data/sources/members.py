"""The images of a place (folder, list, archive, table or Hugging Face set) before they are checked."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import itertools
import os
import posixpath
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from simsiam_tf.data.images.formats import IMAGE_SUFFIXES
from simsiam_tf.data.sources.addresses import read_bytes
from simsiam_tf.data.sources.base import digest_of_pieces, lines
from simsiam_tf.data.sources.file_records import Names
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Members:
    """The encoded images of a place, not yet checked.

    name: the specification of the place.
    names: names of the N images, in order, each once.
    states: int64 [N, 3], the fields `file_records.STATE` of each image's file.
    read: index of an image → its bytes; raises OSError or ValueError.
    key: name of the place in the cache of records.
    labels: int64 [N], −1 for an image without a label; None where no image has one.
    class_names: names of the classes, in the order of their labels; empty where they have none.
    root: the folder that names are relative to, if every image is a file; else None.
    read_op: does what `read` does within a graph, without Python; None where that is not possible.
    sizes: bytes of each image, 0 where unknown; None: they are in `states`.
    reads_at_once: number of images to read at a time over a network; 0 if none is behind a URL.
    """

    name: str
    names: Names
    states: np.ndarray
    read: Callable[[int], bytes]
    key: str
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    root: Path | None = None
    read_op: Callable[[tf.Tensor], tf.Tensor] | None = None
    sizes: np.ndarray | None = None
    reads_at_once: int = 0

    def size(self, i: int) -> int:
        """Number of bytes of image i; 0 where unknown."""
        return int(self.states[i, 0] if self.sizes is None else self.sizes[i])

    def part(self, start: int, stop: int) -> Members:
        """The images start to stop − 1, without labels."""
        rows, read = slice(start, stop), self.read
        return dataclasses.replace(
            self, names=self.names[rows], states=self.states[rows], read=lambda i: read(start + i),
            key=f"{self.key}\0{start}-{stop}", labels=None, read_op=None,
            sizes=self.sizes if self.sizes is None else self.sizes[rows],
        )  # fmt: skip

    def contents(self) -> str:
        """A digest of the names of all images, and of the sizes and times of their files."""
        sizes = self.states[:, :1] if self.sizes is None else self.sizes
        numbers = (np.ascontiguousarray(x, np.int64).data for x in (self.states[:, :2], sizes))
        return digest_of_pieces(itertools.chain(lines(self.names), numbers))


def is_image_name(name: str) -> bool:
    """Whether a file in an archive is an image by its suffix, and not hidden."""
    hidden = any(
        part.startswith(".") or part == "__MACOSX" for part in name.split("/") if part not in ("", ".")
    )
    return posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES and not hidden


def folder_classes(names: Sequence[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """(labels, class names) by the first folder of each name; label −1 for a name without a folder.

    (None, ()) where the names have fewer than two such folders.
    """
    folders = lambda: (name.partition("/")[0] if "/" in name else "" for name in names)  # noqa: E731
    classes = sorted(set(folders()) - {""})
    if len(classes) < 2:
        return None, ()
    number = {name: i for i, name in enumerate(classes)} | {"": -1}
    return np.fromiter((number[folder] for folder in folders()), np.int64, len(names)), tuple(classes)


def file_digest(data: bytes) -> bytes:
    """The length and the BLAKE2b hash of a file, as text; equal digests mean equal files."""
    return b"%d-%s" % (len(data), hashlib.blake2b(data, digest_size=8).hexdigest().encode())


def changed_file(name: str) -> OSError:
    """The error to raise for an image that has changed since the command began."""
    return OSError(errno.ESTALE, "changed since the command began", name)


def read_unchanged(path: str | Path, digest: bytes) -> bytes:
    """Reads a file. Raises OSError, or ValueError where its `file_digest` is another than `digest`."""
    data = read_bytes(str(path), (0, int(digest.partition(b"-")[0])))
    if file_digest(data) != digest or os.path.getsize(path) != len(data):
        raise ValueError("changed")
    return data


def join_labels(
    parts: Sequence[tuple[np.ndarray, tuple[str, ...]]],
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels and class names of several sets as one set's: classes of the same name become one class.

    parts: for each set, its labels (int64; −1: none) and its class names, empty where classes are numbers.
    """
    named = [(labels, names or tuple(map(str, range(labels.max(initial=-1) + 1)))) for labels, names in parts]
    alike = len({names for _, names in named}) == 1
    numbers_alone = not any(names for _, names in parts)
    if alike or numbers_alone:
        return np.concatenate([labels for labels, _ in named]), max((n for _, n in named), key=len)
    classes = sorted({name for _, names in named for name in names})
    number = {name: i for i, name in enumerate(classes)}
    renumbered = [np.array([*(number[name] for name in names), -1])[labels] for labels, names in named]
    return np.concatenate(renumbered), tuple(classes)


def join_members(places: Sequence[Members]) -> Members:
    """The images of several places as one set. If a name occurs twice, all names begin with their place."""
    if len(places) == 1:
        return places[0]
    keys = [place.key for place in places]
    twice = next((place.name for i, place in enumerate(places) if place.key in keys[:i]), None)
    if twice:
        raise UserError(f"{printable_text(twice)}: is named twice.")
    names = [name for place in places for name in place.names]
    if len(set(names)) < len(names):
        names = [f"{place.name}/{name}" for place in places for name in place.names]
    starts = np.cumsum([0, *(len(place.names) for place in places)])
    labels, classes = join_labels(
        [(np.full(len(p.names), -1) if p.labels is None else p.labels, p.class_names) for p in places]
    )

    def read(i: int) -> bytes:
        place = int(np.searchsorted(starts, i, "right")) - 1
        return places[place].read(i - int(starts[place]))

    states = np.concatenate([place.states for place in places])
    sizes = np.array([place.size(i) for place in places for i in range(len(place.names))], np.int64)
    return Members(
        ",".join(place.name for place in places), names, states, read,
        "\0\0".join(place.key for place in places), labels, classes, sizes=sizes,
        reads_at_once=max(place.reads_at_once for place in places),
    )  # fmt: skip
