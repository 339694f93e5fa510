"""Decodes small images of one size once, before a training, instead of once an epoch."""

from __future__ import annotations

import dataclasses
import math
import os

import numpy as np
import tensorflow as tf

from simsiam_tf.data.mapping import map_images, with_options
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
    decoded = np.empty(0, np.uint8)  # until the first images tell the size
    try:
        images = map_images(tf.data.Dataset.range(source.size), source, _small_image, os.cpu_count() or 2)
        blocks = with_options(images.batch(BLOCK), source).as_numpy_iterator()
        with progress.bar(None, "decoding images", total=source.size, unit="image", leave=False) as bar:
            for start in range(0, source.size, BLOCK):
                shapes, pixels = next(blocks)
                shape = tuple(shapes[0])
                if start == 0 and source.size * math.prod(shape) > MAX_BYTES:
                    return source
                if start == 0:
                    decoded = np.empty([source.size, *shape], np.uint8)
                if np.any(shapes != decoded.shape[1:]):
                    return source
                decoded[start : start + BLOCK] = pixels.reshape(-1, *shape)
                bar.update(len(pixels))
    except tf.errors.OpError:
        return source
    return dataclasses.replace(source, decoded=decoded)


def _small_image(image: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A small image → its shape [3] and its pixels. `batch` fails where the numbers of pixels differ."""
    shape = tf.shape(image)
    tf.debugging.assert_less_equal(shape[:2], MAX_SIDE)
    return shape, tf.reshape(image, [-1])


def _sizes_differ(source: EncodedSource) -> bool:
    """Whether the headers, where they are known, tell that images cannot decode to one size."""
    if source.headers is None:
        return False
    known = source.headers[source.headers["reason"] == 0]
    sides = np.sort(np.stack([known["height"], known["width"]], axis=1), axis=1)
    return len(np.unique(sides, axis=0)) > 1
