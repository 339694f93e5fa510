"""TFDS sets as sources: the only module that imports tensorflow_datasets."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from simsiam_tf.data.images.render import PixelRule
from simsiam_tf.data.sources.base import (
    EncodedSource,
    LazyLabels,
    MissingSplit,
    Source,
    from_arrays,
    short_digest,
)
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.errors import UserError, nearest

IN_MEMORY = 2**30  # the most bytes kept in memory: pixels of one size, or files without random access
NOT_READ = -2  # label of an image whose label was not read yet; TFDS uses −1 for labels that are withheld
LABELS_WITHOUT_BAR = 4096  # most labels that are read without a progress bar: those of a batch


def open_set(name: str, split: str, data_dir: str | None) -> Source:
    """Opens a split of a TFDS set: in memory if images have one size and fit `IN_MEMORY`, else encoded.

    Labels are read from a feature "label" that is one class per image; numbers, texts and several classes per
    image are no labels.
    """
    spec = f"tfds:{name}:{split}"
    builder = _prepared_builder(name, spec, data_dir)
    features: Any = builder.info.features
    if not isinstance(features, tfds.features.FeaturesDict) or "image" not in features:
        raise UserError(f"{spec}: has no feature named 'image', but {', '.join(features)}.")
    label = features["label"] if "label" in features else None  # noqa: SIM401 - it has no `get`
    names = tuple(label.names) if isinstance(label, tfds.features.ClassLabel) else ()
    image: Any = features["image"]
    shape = image.shape
    is_image = isinstance(image, tfds.features.Image) or (
        type(image) is tfds.features.Tensor and len(shape) == 3 and None not in shape
    )
    if not is_image or image.np_dtype != np.uint8:
        raise UserError(f"{spec}: 'image' has to be an image of 8 bits a channel. Received: {image!r}.")
    try:
        size = builder.info.splits[split].num_examples
    except (KeyError, ValueError) as error:
        raise MissingSplit(f"{spec}: no such split.{nearest(split, builder.info.splits)}") from error
    if None not in shape and size * int(np.prod(shape)) <= IN_MEMORY:
        rows = _all_records(builder, split)
        labels = np.array([r["label"] for r in rows]) if names else None
        return from_arrays(spec, np.stack([r["image"] for r in rows]), labels, names)
    return _random_access(builder, spec, split, size, names)


def _prepared_builder(name: str, spec: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """The set's builder, with its files downloaded and prepared."""
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        raise UserError(f"{spec}: TFDS has no such set.{nearest(name, tfds.list_builders())}") from error
    except ValueError:  # prepared before, in another format
        builder = tfds.builder(name, data_dir=data_dir)
    retries = logging.getLogger("urllib3.connectionpool")
    level = retries.level
    retries.setLevel(logging.ERROR)  # else a host without a network gets a warning for each of many attempts
    try:
        builder.download_and_prepare()
    except Exception as error:  # noqa: BLE001 - TFDS raises anything, AssertionError included
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        raise UserError(
            f"{spec}: could not be downloaded and prepared in {builder.data_dir} ({reason}). "
            "Prepare it where there is a network and pass `data_dir`."
        ) from error
    finally:
        retries.setLevel(level)
    return builder


def is_prepared(name: str, data_dir: str | None) -> bool:
    """Whether the files of a set of this name lie in the folder, so that none is downloaded."""
    return (
        tfds.builder(name, data_dir=data_dir, file_format="array_record").is_prepared()
        or tfds.builder(name, data_dir=data_dir).is_prepared()
    )


def _all_records(builder: Any, split: str, decoders: dict | None = None) -> list[dict[str, Any]]:
    """The examples of a split, in the same order every time."""
    if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:  # which as_dataset cannot read
        return list(builder.as_data_source(split=split))
    config = tfds.ReadConfig(interleave_cycle_length=1)
    dataset = builder.as_dataset(split=split, shuffle_files=False, read_config=config, decoders=decoders)
    return list(tfds.as_numpy(dataset))


def _encoded_records(
    builder: Any, spec: str, split: str, size: int, bytes_of_all: int, has_parts: bool = True
) -> Sequence[dict]:
    """The examples of a split, with encoded images: by random access, or all in memory up to `IN_MEMORY`.

    has_parts: whether the set is one that takes a part of a split, for the message.
    """
    encoded = {"image": tfds.decode.SkipDecoding()}
    try:
        return builder.as_data_source(split=split, decoders=encoded)
    except (NotImplementedError, ValueError) as error:
        stored = bytes_of_all * size // max(1, sum(s.num_examples for s in builder.info.splits.values()))
        if stored > IN_MEMORY:
            part = f"Pass a part, data='tfds:{builder.name}:train[:10%]', or a" if has_parts else "A"
            folder, form = shlex.quote(str(builder.data_path)), builder.info.file_format.value
            raise UserError(
                f"{spec}: {folder} holds {stored >> 20} MiB as {form}, which has no random access; up to "
                f"{IN_MEMORY >> 20} are read whole. {part}dd files of another format: "
                "pip install apache-beam mlcroissant; tfds convert_format "
                f"--dataset_version_dir={folder} --out_file_format=array_record"
            ) from error
    return _all_records(builder, split, encoded)


def _files(builder: Any) -> list[tuple[str, int]]:
    """Name and bytes of each file of a prepared set, in order."""
    return sorted((file.name, file.stat().length) for file in builder.data_path.iterdir())


def open_objects(
    name: str, split: str, data_dir: str | None
) -> tuple[Sequence[dict[str, Any]], tuple[str, ...], str]:
    """Opens a split of a set for detection, by random access.

    Returns:
        Its examples, with "image" as encoded bytes and "objects" as arrays; the names of the classes of
        objects; a digest that distinguishes the split from others, made without reading it.
    """
    spec = f"tfds:{name}:{split}"
    builder = _prepared_builder(name, spec, data_dir)
    files, size = _files(builder), builder.info.splits[split].num_examples
    stored = sum(length for _, length in files)
    records = _encoded_records(builder, spec, split, size, stored, has_parts=False)
    features: Any = builder.info.features
    digest = short_digest(f"{builder.info.full_name}:{split}:{size}:{files}".encode())
    return records, tuple(features["objects"].feature["label"].names), digest


def _random_access(builder: Any, spec: str, split: str, size: int, names: tuple[str, ...]) -> EncodedSource:
    info, labels = builder.info, np.full(size, NOT_READ, np.int64)
    files = _files(builder)
    records = _encoded_records(builder, spec, split, size, sum(length for _, length in files))

    def read_labels(ids: np.ndarray) -> np.ndarray:
        # Reading all labels of a set like ImageNet takes a pass over its files.
        missing = np.unique(ids)
        missing = missing[labels[missing] == NOT_READ]
        for i in progress.bar(missing, f"labels of {spec}", disable=len(missing) <= LABELS_WITHOUT_BAR):
            labels[i] = records[int(i)]["label"]
        return labels[ids]

    def read_image(i: np.ndarray) -> bytes:
        record = records[int(i)]
        if names:
            labels[i] = record["label"]
        return record["image"]

    def read(index: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(read_image, [index], tf.string), [])

    channels = 1 if info.features["image"].shape[-1] == 1 else 3
    return EncodedSource(
        spec, size, channels,
        LazyLabels(size, read_labels) if names else None, names,
        fingerprint=short_digest(f"{info.full_name}:{split}:{size}".encode()),
        read=read, digests=np.array([f"{length}-{name}" for name, length in files], np.bytes_),
        rule=PixelRule(channels),
    )  # fmt: skip
