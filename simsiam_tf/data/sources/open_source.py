"""Where images come from: arrays in memory, folders, TFDS. A source answers ids with images."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import tensorflow as tf

from simsiam_tf.data.images import header_check
from simsiam_tf.data.sources import folder
from simsiam_tf.runtime.errors import UserError, nearest

KINDS = ("fashion_mnist", "digits", "tfds:NAME[:SPLIT]", "folder:PATH")
ALIASES = {name: f"tfds:{name}" for name in ("cifar10", "cifar100", "imagenet2012", "imagenette")}
FASHION_FOLDERS = ("/usr/share/datasets/fashion-mnist", "/usr/local/share/datasets/fashion-mnist")
FASHION_CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "boot",
)  # fmt: skip


class Labels(Protocol):
    """int64 labels by id: an array, or what reads them when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, ids: np.ndarray) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Source:
    """A set of images with stable ids 0 … size − 1.

    labels: int64 [size], or something that answers labels[ids] like it; None where the set has none.
    """

    name: str
    size: int
    channels: int
    labels: Labels | None
    class_names: tuple[str, ...]
    fingerprint: str

    def decode(self, index: tf.Tensor) -> tf.Tensor:
        """Scalar id → uint8 [H, W, channels], in a graph."""
        raise NotImplementedError

    def contents(self) -> str:
        """A digest of the images themselves; `fingerprint` where they cannot be told apart from others."""
        return self.fingerprint

    def targets(self, ids: tf.Tensor) -> tf.Tensor:
        """Labels of int64 ids [B] in a graph: int64 [B]. Lazy labels are read for these ids alone."""
        labels = self.labels
        if labels is None:
            raise ValueError(f"{self.name} has no labels.")
        if isinstance(labels, np.ndarray):
            return tf.gather(tf.constant(labels), ids)
        read = tf.numpy_function(lambda i: np.asarray(labels[i], np.int64), [ids], tf.int64)
        return tf.ensure_shape(read, ids.shape)


@dataclasses.dataclass(frozen=True)
class ArraySource(Source):
    """Images of one size in memory: uint8 [size, H, W, channels]."""

    images: np.ndarray

    def contents(self) -> str:
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(self.images)
        return digest.hexdigest()[:16]

    def gather(self, ids: tf.Tensor) -> tf.Tensor:
        """int64 [B] → uint8 [B, H, W, channels]."""
        # A closed-over eager tensor is passed by reference; a constant would be copied.
        return tf.gather(self._tensor(), ids)

    def decode(self, index: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._tensor(), index)

    def _tensor(self) -> tf.Tensor:
        if "tensor" not in self.__dict__:
            with tf.init_scope(), tf.device("CPU"):
                self.__dict__["tensor"] = tf.constant(self.images)
        return self.__dict__["tensor"]


@dataclasses.dataclass(frozen=True)
class EncodedSource(Source):
    """Images of any size, read one at a time.

    read: scalar id → encoded bytes. root, names: the folder of the files and their names within, where
    every image is a file. digests: bytes, of each file as it was when the source was opened
    (`folder.digest`); of the files that hold the images, where these are several in one.
    """

    read: Callable[[tf.Tensor], tf.Tensor]
    names: tuple[str, ...] | None = None
    root: Path | None = None
    digests: np.ndarray | None = None

    def decode(self, index: tf.Tensor) -> tf.Tensor:
        return folder.decode(self.read(index), self.channels)

    def contents(self) -> str:
        if self.digests is None:
            return self.fingerprint
        names = "\n".join(self.names or [self.fingerprint])
        return hashlib.sha256(os.fsencode(names) + b"\n" + b" ".join(self.digests.tolist())).hexdigest()[:16]


def from_arrays(
    name: str, images: np.ndarray, labels: np.ndarray | None = None, class_names=()
) -> ArraySource:
    """A source from uint8 images [N, H, W, 1 or 3] (or [N, H, W]) and int labels [N]."""
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[-1] not in (1, 3):
        raise UserError(
            f"{name}: images must be uint8 [N, H, W, 1 or 3]. Received: {images.dtype} {images.shape}."
        )
    images = np.ascontiguousarray(images)
    digest = hashlib.sha256(repr(images.shape).encode() + images[:: max(1, len(images) // 64)].tobytes())
    labels = None if labels is None else np.asarray(labels, np.int64)
    return ArraySource(
        name, len(images), images.shape[-1], labels, tuple(class_names),
        digest.hexdigest()[:16], images,
    )  # fmt: skip


def specification(data: str | os.PathLike) -> str:
    """What names a data set, in full: an alias becomes what it stands for, a path its folder."""
    if isinstance(data, os.PathLike):
        return f"folder:{os.fsdecode(data)}"
    if not isinstance(data, str):
        raise UserError(f"{str(data)[:100]}: names no data set. Pass one of {', '.join(KINDS)}, or a path.")
    return ALIASES.get(data, data)


def open_source(
    spec: str | os.PathLike,
    split: str = "train",
    data_dir: str | None = None,
    on_bad_image: str = "error",
    report: Path | None = None,
    max_megapixels: float = header_check.MEGAPIXELS,
) -> Source:
    """The source that a specification names.

    Args:
        spec: one of `KINDS`; the first two and TFDS take a split, as in
            "fashion_mnist:train[:50000]". "cifar10" is short for "tfds:cifar10", a `Path` for
            "folder:PATH".
        split: the split when the specification names none.
        data_dir: where TFDS keeps its sets; its own default when None.
        on_bad_image: "error" or "skip", for images of a folder that cannot be read.
        report: file that unreadable images are listed in.
        max_megapixels: larger images of a folder count as unreadable.

    Raises:
        UserError: the set is unknown, missing, empty or unreadable.
    """
    spec = specification(spec)
    kind, _, rest = spec.partition(":")
    if kind == "folder":
        return _folder(rest, on_bad_image, report, max_megapixels)
    if kind == "tfds":
        name, _, own = rest.partition(":")
        return _tfds(name, own or split, data_dir)
    if kind in ("fashion_mnist", "digits"):
        part, cut = _slice(rest or split, spec)
        source = _fashion_mnist(part, data_dir) if kind == "fashion_mnist" else _digits(part)
        return _sliced(source, cut, spec)
    known = ["fashion_mnist", "digits", "tfds:NAME", "folder:PATH", *ALIASES]
    raise UserError(f"{spec}: no such data set.{nearest(spec, known)}")


def query_split(spec: str | os.PathLike) -> str | None:
    """The split that a monitor asks its questions from, or None where there is only one."""
    kind = specification(spec).partition(":")[0]
    return None if kind == "folder" else "test"


def _slice(text: str, spec: str) -> tuple[str, slice]:
    match = re.fullmatch(r"(train|test)(?:\[(-?\d*):(-?\d*)\])?", text)
    if not match:
        raise UserError(f"{spec}: {text!r} is no split. Try train, test, or train[:50000].")
    start, stop = (int(g) if g else None for g in match.groups()[1:])
    return match[1], slice(start, stop)


def _sliced(source: ArraySource, cut: slice, spec: str) -> ArraySource:
    if cut == slice(None, None):
        return source
    images, labels = source.images[cut], source.labels[cut]
    if not len(images):
        raise UserError(f"{spec}: the slice holds no image; the split has {source.size}.")
    return from_arrays(spec, images, labels, source.class_names)


def _digits(split: str) -> ArraySource:
    """1,797 digits of 8×8 (scikit-learn); every fifth is in the test split."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    test = np.arange(len(bunch.images)) % 5 == 0
    keep = test if split == "test" else ~test
    images = np.round(bunch.images[keep] * (255 / 16)).astype(np.uint8)
    return from_arrays(f"digits:{split}", images, bunch.target[keep], map(str, range(10)))


def _fashion_mnist(split: str, data_dir: str | None) -> ArraySource:
    """60,000 + 10,000 images of 28×28, from Debian's package where installed, else TFDS."""
    prefix = "t10k" if split == "test" else "train"
    own = os.environ.get("FASHION_MNIST_DIR")
    for root in ([own] if own else []) + list(FASHION_FOLDERS):
        path = Path(root) / f"{prefix}-images-idx3-ubyte.gz"
        if path.exists():
            images = _idx(path)
            labels = _idx(path.with_name(f"{prefix}-labels-idx1-ubyte.gz"))
            return from_arrays(f"fashion_mnist:{split}", images, labels, FASHION_CLASSES)
    try:
        return _tfds("fashion_mnist", split, data_dir)
    except UserError as error:
        raise UserError(
            f"fashion_mnist: not in {FASHION_FOLDERS[0]} (apt-get install "
            f"dataset-fashion-mnist), and the download failed: {error}"
        ) from error


def _idx(path: Path) -> np.ndarray:
    """An IDX file, the format of MNIST: magic with the rank, big-endian sizes, bytes."""
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: unreadable ({error}). Install the data set again.") from error
    rank = data[3]
    shape = np.frombuffer(data, ">u4", rank, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _folder(path: str, on_bad_image: str, report: Path | None, max_megapixels: float) -> EncodedSource:
    listing = folder.read(path, on_bad_image, report, max_megapixels)
    root = listing.root.absolute()  # for data workers, which may run in another folder
    # Names are bytes to the system, and need not be text.
    paths = tf.constant([os.fsencode(root / name) for name in listing.names])
    digest = hashlib.sha256(os.fsencode("\n".join(listing.names))).hexdigest()[:16]
    return EncodedSource(
        f"folder:{path}", len(listing.names), 3, listing.labels, listing.class_names, digest,
        lambda index: tf.io.read_file(tf.gather(paths, index)), tuple(listing.names), root, listing.digests,
    )  # fmt: skip


def _tfds(name: str, split: str, data_dir: str | None) -> Source:
    from simsiam_tf.data.sources import tfds_sets  # takes seconds to import

    return tfds_sets.open_set(name, split, data_dir)
