"""Decodes small images of one size once, before a training, instead of once an epoch."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from simsiam_tf.data.sources.base import EncodedSource, Source
from simsiam_tf.runtime import progress

MAX_SIDE = 128  # pixels; crops of larger images are faster one at a time than in batches
MAX_BYTES = 2**29  # of all pixels
BLOCK = 256  # images decoded between two reports of progress


def keep_decoded(source: Source) -> Source:
    """The source with all its images decoded, where their headers show one size and they are small.

    Their views take much less time (docs/performance.md). Others are returned as they are, and so are those
    that fail to decode: the training, which reads them again, says which.
    """
    if not isinstance(source, EncodedSource) or source.headers is None or source.decoded is not None:
        return source
    sizes = np.unique(source.headers[["height", "width"]])
    height, width = (int(side) for side in sizes[0])
    turned = height != width and (source.headers["orientation"] > 4).any()
    n_bytes = source.size * height * width * source.channels
    if len(sizes) > 1 or turned or max(height, width) > MAX_SIDE or n_bytes > MAX_BYTES:
        return source
    images = tf.data.Dataset.range(source.size).map(source.decode, tf.data.AUTOTUNE).batch(BLOCK)
    decoded = np.empty([source.size, height, width, source.channels], np.uint8)
    try:
        with progress.bar(None, "decoding images", total=source.size, unit="image", leave=False) as bar:
            for start, block in zip(range(0, source.size, BLOCK), images.as_numpy_iterator(), strict=True):
                decoded[start : start + BLOCK] = block
                bar.update(len(block))
    except (tf.errors.OpError, ValueError):
        return source
    return dataclasses.replace(source, decoded=decoded)
