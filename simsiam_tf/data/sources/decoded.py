"""Decodes small images of one size once, before a training, instead of once an epoch."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import tensorflow as tf

from simsiam_tf.data.sources.base import EncodedSource, Source
from simsiam_tf.runtime import progress

MAX_SIDE = 128  # pixels; crops of larger images are faster one at a time than in batches
MAX_BYTES = 2**29  # of all pixels
BLOCK = 256  # images decoded between two reports of progress


def keep_decoded(source: Source) -> Source:
    """The source with all its images decoded, where they are small and decode to one size.

    Their views take much less time (docs/performance.md). Others are returned as they are, and so are those
    that fail to decode: the training, which reads them again, says which. The images alone decide, not what
    is known of their headers, so that a run that continues has the same views, whatever was checked.
    """
    if not isinstance(source, EncodedSource) or source.decoded is not None or _sizes_differ(source):
        return source
    try:
        shape = source.decode(tf.constant(0, tf.int64)).numpy().shape
        if max(shape[:2]) > MAX_SIDE or source.size * math.prod(shape) > MAX_BYTES:
            return source
        # NOTE: `batch` alone joins images of 30×40 and 40×30, which have as many numbers.
        decode = lambda i: tf.ensure_shape(source.decode(i), shape)  # noqa: E731
        images = tf.data.Dataset.range(source.size).map(decode, tf.data.AUTOTUNE).batch(BLOCK)
        decoded = np.empty([source.size, *shape], np.uint8)
        with progress.bar(None, "decoding images", total=source.size, unit="image", leave=False) as bar:
            for start, block in zip(range(0, source.size, BLOCK), images.as_numpy_iterator(), strict=True):
                decoded[start : start + BLOCK] = block
                bar.update(len(block))
    except tf.errors.OpError:
        return source
    return dataclasses.replace(source, decoded=decoded)


def _sizes_differ(source: EncodedSource) -> bool:
    """Whether the headers, where they are known, tell that images cannot decode to one size."""
    if source.headers is None:
        return False
    known = source.headers[source.headers["reason"] == 0]
    sides = np.sort(np.stack([known["height"], known["width"]], axis=1), axis=1)
    return len(np.unique(sides, axis=0)) > 1
