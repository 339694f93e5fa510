"""TFDS sets as sources: the only module that imports tensorflow_datasets."""

from __future__ import annotations

import hashlib
import shlex

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from simsiam_tf.data.sources.open_source import EncodedSource, Source, from_arrays
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.errors import UserError, nearest

IN_MEMORY = 2**30  # bytes that are kept in memory: pixels of one size, or files without random access
UNREAD = -2  # −1 is what TFDS calls a label that is withheld


def open_set(name: str, split: str, data_dir: str | None) -> Source:
    """A split of a TFDS set, in memory where it is small, else read at random.

    Labels are those of a feature "label" that is a class; a number, a text or several classes an image
    are none.

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
            "Prepare it where there is a network and pass `data_dir`."
        ) from error
    features = builder.info.features
    if not isinstance(features, tfds.features.FeaturesDict) or "image" not in features:
        raise UserError(f"{spec}: has no feature named 'image', but {', '.join(features)}.")
    image = features["image"]
    fits = isinstance(image, tfds.features.Image) or (
        type(image) is tfds.features.Tensor and len(image.shape) == 3 and None not in image.shape
    )
    if not fits or image.np_dtype != np.uint8:
        raise UserError(f"{spec}: 'image' has to be an image of 8 bits a channel. Received: {image!r}.")
    try:
        size = builder.info.splits[split].num_examples
    except (KeyError, ValueError) as error:
        raise UserError(f"{spec}: no such split.{nearest(split, builder.info.splits)}") from error
    shape, names = image.shape, _class_names(features["label"]) if "label" in features else ()
    if None not in shape and size * int(np.prod(shape)) <= IN_MEMORY:
        rows = _rows(builder, split)
        labels = np.array([r["label"] for r in rows]) if names else None
        return from_arrays(spec, np.stack([r["image"] for r in rows]), labels, names)
    return _random_access(builder, spec, split, size, names)


def _class_names(label: tfds.features.FeatureConnector) -> tuple[str, ...]:
    """The names of a label's classes; none where it says no class."""
    return tuple(label.names) if isinstance(label, tfds.features.ClassLabel) else ()


def _rows(builder, split: str, decoders: dict | None = None) -> list[dict]:
    """The examples of a split, in the same order every time."""
    if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:  # which as_dataset cannot read
        return list(builder.as_data_source(split=split))
    config = tfds.ReadConfig(interleave_cycle_length=1)
    whole = builder.as_dataset(split=split, shuffle_files=False, read_config=config, decoders=decoders)
    return list(tfds.as_numpy(whole))


def _stored_bytes(builder, size: int) -> int:
    """About how many bytes of files `size` of a set's examples take."""
    examples = sum(split.num_examples for split in builder.info.splits.values())
    return sum(file.stat().length for file in builder.data_path.iterdir()) * size // max(1, examples)


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
        many = len(missing) > 4096  # those of a batch come without a bar
        for i in progress.bar(missing, f"labels of {self._spec}", disable=not many):
            self.remember(int(i), self._records[int(i)])
        return self._known[ids]

    def remember(self, i: int, record: dict) -> None:
        """Keeps the label of a record that was read for its image."""
        self._known[i] = record["label"]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def _random_access(builder, spec: str, split: str, size: int, names: tuple) -> EncodedSource:
    skip = {"image": tfds.decode.SkipDecoding()}
    try:
        records = builder.as_data_source(split=split, decoders=skip)
    except (NotImplementedError, ValueError) as error:
        stored = _stored_bytes(builder, size)
        if stored > IN_MEMORY:
            folder, form = shlex.quote(str(builder.data_path)), builder.info.file_format.value
            raise UserError(
                f"{spec}: {folder} holds {stored >> 20} MiB as {form}, which has no random access; up to "
                f"{IN_MEMORY >> 20} are read whole. Pass a part, data='tfds:{builder.name}:train[:10%]', "
                "or add files of another format: pip install apache-beam mlcroissant; tfds convert_format "
                f"--dataset_version_dir={folder} --out_file_format=array_record"
            ) from error
        records = _rows(builder, split, skip)  # encoded, as they lie in the files
    labels = RecordLabels(records, spec) if names else None
    channels = 1 if builder.info.features["image"].shape[-1] == 1 else 3

    def image(i: np.ndarray) -> bytes:
        record = records[int(i)]
        if labels is not None:
            labels.remember(int(i), record)
        return record["image"]

    def read(index: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(image, [index], tf.string), [])

    digest = hashlib.sha256(f"{builder.info.full_name}:{split}:{size}".encode()).hexdigest()[:16]
    files = sorted((file.name, file.stat().length) for file in builder.data_path.iterdir())
    digests = np.array([f"{length}-{name}" for name, length in files], np.bytes_)
    return EncodedSource(spec, size, channels, labels, names, digest, read, digests=digests)
