"""Images that change, or go, while their features are made."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from simsiam_tf.data import Source, subset
from simsiam_tf.data.sources import folder_check
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError


class ChangedImages(UserError):
    """Images of a source that are not those that were checked when it was opened.

    names: of those images. rest: the source of the others.
    """

    names: list[str]
    rest: EncodedSource


def changed_images(source: EncodedSource, changed: set[int]) -> UserError:
    """The error for images that changed: ChangedImages, unless none is left.

    changed: their ids.
    """
    names, shown = [source.names[i] for i in sorted(changed)], printable_text(source.name)
    if len(names) == source.size:
        return UserError(f"{shown}: all images changed or went while their features were made.")
    error = ChangedImages(
        f"{shown}: {len(names)} of {source.size} images changed or went while their features were made, such "
        f"as {printable_text(names[0])}. Rerun the same command: the features of the others are kept."
    )
    others = np.setdiff1d(np.arange(source.size), list(changed))
    error.names, error.rest = names, subset(source, others, source.name)
    return error


def watch(source: Source, changed: set[int]) -> Source:
    """A source that compares every image file with its digest when it reads it; others as they are.

    changed: takes the ids of the files that differ, in whose place a blank image is read.
    """
    if not isinstance(source, EncodedSource) or source.root is None or source.digests is None:
        return source
    blank = tf.io.encode_png(tf.zeros([1, 1, source.channels], tf.uint8)).numpy()

    def read(index: np.ndarray) -> bytes:
        i = int(index)
        try:
            return folder_check.read_unchanged(source.root / source.names[i], source.digests[i])
        except (OSError, ValueError):
            changed.add(i)
            return blank

    def in_graph(index: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(read, [index], tf.string), [])

    return dataclasses.replace(source, read=in_graph)
