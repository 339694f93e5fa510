"""Sources: sets of images, each with an id; images are in memory or read one at a time."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from simsiam_tf.data.images.decode import decode
from simsiam_tf.data.images.header import MEGAPIXELS
from simsiam_tf.data.images.render import COLOURS, PixelRule
from simsiam_tf.runtime.errors import UserError

PIECE = 2**16  # names or digests that are hashed at a time


def short_digest(*parts: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of the parts, which are bytes, one after the other."""
    return digest_of_pieces(parts)


def digest_of_pieces(pieces: Iterable[Any]) -> str:
    """Returns the same as `short_digest`, for pieces that need not be in memory together."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()[:16]


def lines(names: Sequence[str]) -> Iterator[bytes]:
    """The bytes of "\\n".join(names), in pieces."""
    for start in range(0, len(names), PIECE):
        yield os.fsencode("\n" * (start > 0) + "\n".join(names[start : start + PIECE]))


class LazyLabels:
    """int64 labels that are read when they are asked for. read: ids → their labels."""

    def __init__(self, size: int, read: Callable[[np.ndarray], np.ndarray]) -> None:
        self.size, self.read = size, read

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, ids: Any) -> Any:
        return self.read(np.arange(self.size)[ids])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


@dataclasses.dataclass(frozen=True)
class SourceOptions:
    """Arguments of `open_source` besides the specification."""

    split: str = "train"
    data_dir: str | None = None
    on_bad_image: str = "error"
    report: Path | None = None
    max_megapixels: float = MEGAPIXELS
    check: str = "decode"
    channels: int | None = None
    background: str = "white"
    pixel_range: str = "auto"
    run: Path | None = None
    partial_labels: bool = False


@dataclasses.dataclass(frozen=True)
class Squares:
    """Images in memory that were resized to squares, which changes their proportions.

    pixels: uint8 [N, S, S, channels]. sizes: heights and widths before, in pixels, float32 [N, 2].
    """

    pixels: tf.Tensor
    sizes: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Source:
    """A set of images with stable ids 0 … size − 1.

    name: its specification, for messages and names of files. channels: number of channels of every decoded
    image. labels: int64 [size]; None where the set has no labels. class_names: names of the classes, by
    label; empty where unknown.
    fingerprint: a digest that distinguishes the set from others, made without reading all of it.
    squares: copies of all images (`keep_squares`); training views are cut from them.
    """

    name: str
    size: int
    channels: int
    labels: np.ndarray | LazyLabels | None
    class_names: tuple[str, ...]
    fingerprint: str
    squares: Squares | None = dataclasses.field(default=None, kw_only=True)

    @property
    def pixels(self) -> np.ndarray | None:
        """All images, uint8 [size, H, W, channels], where they have one size and are in memory."""
        return None

    @functools.cached_property
    def _tensor(self) -> tf.Tensor:
        # NOTE: a graph refers to an eager tensor that it closes over; a constant would be copied.
        with tf.init_scope(), tf.device("CPU"):
            return tf.constant(np.asarray(self.pixels))

    def gather(self, ids: tf.Tensor) -> tf.Tensor:
        """Ids, int64 [B] → images, uint8 [B, H, W, channels]; only for a source with `pixels`."""
        return tf.gather(self._tensor, ids)

    def decode(self, index: tf.Tensor) -> tf.Tensor:
        """Scalar id → uint8 [H, W, channels], in a graph."""
        raise NotImplementedError

    def contents(self) -> str:
        """A digest of all images: of their pixels or, if encoded, of `digests`; else `fingerprint`."""
        return self.fingerprint

    def targets(self, ids: tf.Tensor) -> tf.Tensor:
        """Labels of int64 ids [B] in a graph: int64 [B]. Lazy labels are read for these ids alone."""
        labels = self.labels
        assert labels is not None
        if isinstance(labels, np.ndarray):
            return tf.gather(tf.constant(labels), ids)
        read = tf.numpy_function(lambda i: np.asarray(labels[i], np.int64), [ids], tf.int64)
        return tf.ensure_shape(read, ids.shape)

    def subset(self, ids: np.ndarray, name: str) -> Source:
        """The source whose image i is image ids[i] of this one."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class ArraySource(Source):
    """Images of one size in memory: uint8 [size, H, W, channels]."""

    images: np.ndarray

    @property
    def pixels(self) -> np.ndarray:
        return self.images

    def contents(self) -> str:
        return short_digest(repr(self.images.shape).encode(), self.images.data)

    def decode(self, index: tf.Tensor) -> tf.Tensor:
        return self.gather(index)

    def subset(self, ids: np.ndarray, name: str) -> ArraySource:
        labels = None if self.labels is None else self.labels[ids]
        return from_arrays(name, self.images[ids], labels, self.class_names)


@dataclasses.dataclass(frozen=True)
class EncodedSource(Source):
    """Images of any size, read one at a time, unless they are decoded.

    read: scalar id → encoded bytes, in a graph. names: names of the images. root: the folder that names are
    relative to, if every image is a file and was checked. digests: a digest of each image, or of each file
    of a TFDS set, to notice changes. rule: how encoded bytes become pixels. headers: `file_records.RECORD`
    [size]; None where unknown. unreadable: reason → number of unreadable images; they are left out or, in a
    run that continues, replaced by others. reads_at_once: images to read at a time over a network; 0 for
    images on this machine. decoded: pixels of all images (`keep_decoded`), or None.
    """

    read: Callable[[tf.Tensor], tf.Tensor]
    names: tuple[str, ...] | None = None
    root: Path | None = None
    digests: np.ndarray | None = None
    rule: PixelRule = COLOURS
    headers: np.ndarray | None = None
    unreadable: dict[str, int] = dataclasses.field(default_factory=dict)
    reads_at_once: int = 0
    decoded: np.ndarray | None = None

    @property
    def pixels(self) -> np.ndarray | None:
        return self.decoded

    def decode(self, index: tf.Tensor) -> tf.Tensor:
        if self.decoded is not None:
            return self.gather(index)
        return self.decode_bytes(self.read(index), index)

    def decode_bytes(self, data: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """The encoded bytes of image `index` → uint8 [H, W, channels]."""
        plain = None if self.headers is None else self.headers["plain"]
        if plain is not None:
            plain = bool(plain.all()) or tf.gather(tf.constant(plain), index)
        return decode(data, self.rule, plain)

    def contents(self) -> str:
        if self.digests is None:
            return self.fingerprint
        starts = range(0, len(self.digests), PIECE)
        digests = (b" " * (a > 0) + b" ".join(self.digests[a : a + PIECE].tolist()) for a in starts)
        names = lines(self.names or [self.fingerprint])
        return digest_of_pieces(itertools.chain(names, [b"\n"], digests, [repr(self.rule).encode()]))

    def subset(self, ids: np.ndarray, name: str) -> EncodedSource:
        chosen, read, labels = tf.constant(ids), self.read, self.labels
        if labels is not None:
            lazy = LazyLabels(len(ids), lambda i, labels=labels: labels[ids[i]])
            labels = labels[ids] if isinstance(labels, np.ndarray) else lazy
        names = self.names and tuple(self.names[i] for i in ids)
        return dataclasses.replace(
            self, name=name, size=len(ids), labels=labels, names=names,
            fingerprint=short_digest(self.fingerprint.encode(), ids.tobytes()),
            read=lambda index: read(tf.gather(chosen, index)),
            digests=self.digests[ids] if names and self.digests is not None else self.digests,
            headers=self.headers if self.headers is None else self.headers[ids],
            decoded=self.decoded if self.decoded is None else self.decoded[ids], squares=None,
        )  # fmt: skip


def from_arrays(
    name: str, images: np.ndarray, labels: Any = None, class_names: Iterable[str] = ()
) -> ArraySource:
    """A source from uint8 images [N, H, W, 1 or 3] (or [N, H, W]) and int labels [N]."""
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[-1] not in (1, 3):
        raise UserError(
            f"{name}: images must be uint8 [N, H, W, 1 or 3]. Received: {images.dtype} {images.shape}."
        )
    images = np.ascontiguousarray(images)
    fingerprint = short_digest(repr(images.shape).encode(), images[:: max(1, len(images) // 64)].tobytes())
    labels = None if labels is None else np.asarray(labels, np.int64)
    return ArraySource(name, len(images), images.shape[-1], labels, tuple(class_names), fingerprint, images)


def to_colours(source: Source) -> Source:
    """Gray images in memory with three equal channels; other sources unchanged."""
    if not isinstance(source, ArraySource) or source.channels != 1:
        return source
    images, fingerprint = np.repeat(source.images, 3, axis=-1), source.fingerprint.encode()
    return dataclasses.replace(source, images=images, channels=3, fingerprint=short_digest(fingerprint, b"3"))


def subset(source: Source, ids: np.ndarray | Sequence[int], name: str | None = None) -> Source:
    """The source whose image i is image ids[i] of another.

    ids: int [n], n ≥ 1, in any order. name: name of the subset; "SOURCE[n of N]" when None.
    """
    ids = np.asarray(ids, np.int64)
    return source.subset(ids, name or f"{source.name}[{len(ids)} of {source.size}]")


class MissingSplit(UserError):
    """Raised where a set has no split of the requested name."""


def open_split(name: str, split: str, open_whole: Callable[[str], Source]) -> Source:
    """Opens a split of the set `name`, or a slice of it as in "train[:50000]".

    open_whole: "train" or "test" → the whole split.
    """
    spec = f"{name}:{split}"
    match = re.fullmatch(r"(train|test)(?:\[(-?\d*):(-?\d*)\])?", split)
    if not match:
        raise MissingSplit(f"{spec}: {split!r} is not a split. Try train, test, or train[:50000].")
    start, stop = (int(text) if text else None for text in match.groups()[1:])
    source = open_whole(match[1])
    if start is stop is None:
        return source
    ids = np.arange(source.size)[start:stop]
    if not len(ids):
        raise UserError(f"{spec}: the slice holds no image; the split has {source.size}.")
    return subset(source, ids, spec)
