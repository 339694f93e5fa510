"""TFDS sets as sources: the only module that imports tensorflow_datasets."""

from __future__ import annotations

import hashlib

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from simsiam_tf import progress
from simsiam_tf.data.sources import EncodedSource, Source, from_arrays
from simsiam_tf.errors import UserError, nearest

IN_MEMORY = 2**30  # bytes of pixels up to which a set of one image size is kept in memory
UNREAD = -2  # −1 is what TFDS calls a label that is withheld


def open_set(name: str, split: str, data_dir: str | None) -> Source:
    """A split of a TFDS set, in memory where it is small, else read at random.

    Raises:
        UserError: no such set or split, no images in it, not downloadable, or kept in a format
            without random access and too large for memory.
    """
    spec = f"tfds:{name}:{split}"
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except tfds.core.registered.DatasetNotFoundError as error:
        raise UserError(f"{spec}: TFDS has no such set.{nearest(name, tfds.list_builders())}") from error
    except ValueError:  # prepared before, in another format
        builder = tfds.builder(name, data_dir=data_dir)
    try:
        builder.download_and_prepare()
    except Exception as error:  # noqa: BLE001 - TFDS raises anything, AssertionError included
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        raise UserError(
            f"{spec}: could not be downloaded and prepared in {builder.data_dir} ({reason}). "
            "Prepare it where there is a network and pass --data_dir."
        ) from error
    features = builder.info.features
    if "image" not in features:
        raise UserError(f"{spec}: has no feature named 'image', but {', '.join(features)}.")
    try:
        size = builder.info.splits[split].num_examples
    except (KeyError, ValueError) as error:
        raise UserError(f"{spec}: no such split.{nearest(split, builder.info.splits)}") from error
    shape = features["image"].shape
    names = tuple(features["label"].names) if "label" in features else ()
    if None not in shape and size * int(np.prod(shape)) <= IN_MEMORY:
        rows = _rows(builder, split)
        labels = np.array([r["label"] for r in rows]) if names else None
        return from_arrays(spec, np.stack([r["image"] for r in rows]), labels, names)
    return _random_access(builder, spec, split, size, names)


def _rows(builder, split: str) -> list[dict]:
    """The examples of a split, in the same order every time."""
    if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:  # which as_dataset cannot read
        return list(builder.as_data_source(split=split))
    config = tfds.ReadConfig(interleave_cycle_length=1)
    whole = builder.as_dataset(split=split, shuffle_files=False, read_config=config)
    return list(tfds.as_numpy(whole))


class RecordLabels:
    """Labels of records that lie on disk, read when they are first asked for.

    A set like ImageNet has to be read whole for all of its labels: a run that never asks for
    them must not wait for that.
    """

    def __init__(self, records, spec: str) -> None:
        self._records, self._spec = records, spec
        self._known = np.full(len(records), UNREAD, np.int64)

    def __len__(self) -> int:
        return len(self._known)

    def __getitem__(self, ids) -> np.ndarray:
        missing = np.unique(np.arange(len(self))[ids])
        missing = missing[self._known[missing] == UNREAD]
        for i in progress.bar(missing, f"labels of {self._spec}"):
            self._known[i] = self._records[int(i)]["label"]
        return self._known[ids]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def _random_access(builder, spec: str, split: str, size: int, names: tuple) -> EncodedSource:
    skip = {"image": tfds.decode.SkipDecoding()}
    try:
        records = builder.as_data_source(split=split, decoders=skip)
    except (NotImplementedError, ValueError) as error:
        raise UserError(
            f"{spec}: {builder.data_dir} holds it in a format without random access. Prepare it "
            f"again: tfds build {builder.name} --file_format=array_record"
        ) from error
    labels = RecordLabels(records, spec) if names else None
    channels = 1 if builder.info.features["image"].shape[-1] == 1 else 3

    def read(index):
        one = lambda i: records[int(i)]["image"]  # noqa: E731
        return tf.ensure_shape(tf.numpy_function(one, [index], tf.string), [])

    digest = hashlib.sha256(f"{builder.info.full_name}:{split}:{size}".encode()).hexdigest()[:16]
    files = sorted((file.name, file.stat().length) for file in builder.data_path.iterdir())
    digests = np.array([f"{length}-{name}" for name, length in files], np.bytes_)
    return EncodedSource(spec, size, channels, labels, names, digest, read, digests=digests)
