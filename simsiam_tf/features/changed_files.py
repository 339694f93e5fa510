"""Image files that change or are removed while their features are extracted."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from simsiam_tf.data import Source, subset
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.data.sources.members import read_unchanged
from simsiam_tf.runtime.display_text import counted, printable_text
from simsiam_tf.runtime.errors import UserError


class ChangedImages(UserError):
    """Some images of a source are no longer the files that it was opened with.

    names: names of those images. rest_ids: ids of the others. rest: a source of the others alone.

    Args:
        source: the source, whose images are files.
        ids: ids of the images that changed; not all of the source.
        advice: the message's end.
    """

    def __init__(
        self, source: EncodedSource, ids: set[int],
        advice: str = "Rerun the same command: the others' features are kept.",
    ) -> None:  # fmt: skip
        assert source.names is not None
        self.names = [source.names[i] for i in sorted(ids)]
        self.rest_ids = np.setdiff1d(np.arange(source.size), list(ids))
        self.rest: Source = subset(source, self.rest_ids, source.name)
        super().__init__(
            f"{printable_text(source.name)}: {len(ids)} of {counted(source.size, 'image')} changed "
            "or disappeared while their features were made, such as "
            f"{printable_text(self.names[0])}. {advice}"
        )


def verified_source(source: Source, changed: set[int]) -> Source:
    """The same source; where its images are files, it compares each with its digest when it reads it.

    changed: receives the ids of files that changed or are gone; a blank image is read in their place.
    """
    if not isinstance(source, EncodedSource) or source.root is None or source.digests is None:
        return source
    root, names, digests = source.root, source.names, source.digests
    assert names is not None
    blank = source.rule.blank_image()

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
