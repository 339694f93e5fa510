"""Image files that change or are removed while their features are extracted."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from simsiam_tf.data import Source, subset
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.data.sources.folder_check import read_unchanged
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError


class ChangedImages(UserError):
    """Some images of a source are no longer the files that it was opened with.

    names: names of those images. rest: the source without them.
    """

    names: list[str]
    rest: Source


def changed_images(source: Source, changed: set[int]) -> UserError:
    """The error for the image ids `changed`: ChangedImages, or UserError if no other image is left."""
    assert isinstance(source, EncodedSource) and source.names is not None
    names, shown = [source.names[i] for i in sorted(changed)], printable_text(source.name)
    if len(names) == source.size:
        return UserError(f"{shown}: all images changed or disappeared while their features were made.")
    error = ChangedImages(
        f"{shown}: {len(names)} of {source.size} images changed or disappeared while their features were "
        f"made, such as {printable_text(names[0])}. Rerun the same command: the others' features are kept."
    )
    error.names = names
    error.rest = subset(source, np.setdiff1d(np.arange(source.size), list(changed)), source.name)
    return error


def verified_source(source: Source, changed: set[int]) -> Source:
    """A source of image files that compares each file with its digest when it reads it; others unchanged.

    changed: receives the ids of files that differ; a blank image is read in their place.
    """
    if not isinstance(source, EncodedSource) or source.root is None or source.digests is None:
        return source
    root, names, digests = source.root, source.names, source.digests
    assert names is not None
    blank = tf.io.encode_png(tf.zeros([1, 1, source.channels], tf.uint8)).numpy()

    def read_file(index: np.ndarray) -> bytes:
        i = int(index)
        try:
            return read_unchanged(root / names[i], digests[i])
        except (OSError, ValueError):
            changed.add(i)
            return blank

    def read(index: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(read_file, [index], tf.string), [])

    return dataclasses.replace(source, read=read)
