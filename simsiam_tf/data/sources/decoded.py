"""Keeps the images of a training in memory, decoded once instead of once an epoch."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from simsiam_tf.data.augment.crops import resize
from simsiam_tf.data.mapping import map_images, with_options
from simsiam_tf.data.sources.base import EncodedSource, Source, Squares
from simsiam_tf.runtime import cores, progress
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError, file_failure

MAX_SIDE = 128  # pixels; crops of larger images are faster one at a time than in batches
MAX_BYTES = 2**29  # of all pixels
BLOCK = 256  # images decoded between two reports of progress


def keep_decoded(source: Source) -> Source:
    """The source with all its images decoded, where they are small and decode to one size.

    Their views take much less time (docs/performance.md). Others are returned as they are, and so are those
    that fail to decode: the training, which reads them again, says which. The images alone decide, not what
    is known of their headers, so that a run that continues has the same views, whatever was checked.
    """
    if not isinstance(source, EncodedSource) or source.decoded is not None or sizes_differ(source):
        return source
    decoded = np.empty(0, np.uint8)  # until the first images tell the size
    try:
        for start, (shapes, pixels) in _decoded_blocks(source, _small_image):
            shape = tuple(shapes[0])
            if start == 0 and source.size * math.prod(shape) > MAX_BYTES:
                return source
            if start == 0:
                decoded = np.empty([source.size, *shape], np.uint8)
            if np.any(shapes != decoded.shape[1:]):
                return source
            decoded[start : start + BLOCK] = pixels.reshape(-1, *shape)
    except tf.errors.OpError:
        return source
    return dataclasses.replace(source, decoded=decoded)


def keep_squares(source: Source, side: int) -> Source:
    """The source with a copy of each image, of any size, from which the views of a training are cut.

    Copies are squares of `side` pixels. Crops have the places, areas and proportions that they have in the
    images; the square blurs those of fewer pixels than they are resized to.

    Raises:
        UserError: an image cannot be decoded.
    """
    if source.squares is not None:
        return source

    def square(image: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = tf.clip_by_value(tf.round(resize(image, side, side)), 0.0, 255.0)
        return tf.shape(image)[:2], tf.cast(pixels, tf.uint8)

    squares = np.empty([source.size, side, side, source.channels], np.uint8)
    sizes = np.empty([source.size, 2], np.float32)
    done = 0
    try:
        for start, (shapes, pixels) in _decoded_blocks(source, square):
            done = start + len(pixels)
            squares[start:done], sizes[start:done] = pixels, shapes
    except tf.errors.OpError as error:
        for i in range(done, min(done + BLOCK, source.size)):
            with contextlib.suppress(tf.errors.OpError):
                source.decode(tf.constant(i, tf.int64))
                continue
            name = source.names[i] if isinstance(source, EncodedSource) and source.names else f"image {i}"
            text = f"{source.name}: {printable_text(name)} cannot be decoded. Leave it out of the set."
            raise UserError(file_failure(error) or text) from error
        raise
    with tf.device("CPU"):
        return dataclasses.replace(source, squares=Squares(tf.constant(squares), tf.constant(sizes)))


def bytes_in_memory(source: Source, side: int | None) -> tuple[int, int]:
    """Bytes of decoded images, for a source that is not decoded yet: (those that stay, further ones before).

    side: that of `keep_squares`; None: `keep_decoded` has the choice, and the headers tell what it will be.
    """
    if side:
        pixels = source.size * side**2 * source.channels
        return pixels, pixels
    if not isinstance(source, EncodedSource) or source.decoded is not None:
        return 0, 0
    headers = source.headers
    if headers is None or sizes_differ(source):
        return 0, 0
    height, width = (int(headers[name][0]) for name in ("height", "width"))
    pixels = source.size * height * width * source.channels
    # The array and, from the first batch on, a tensor of it.
    return (2 * pixels, 0) if max(height, width) <= MAX_SIDE and pixels <= MAX_BYTES else (0, 0)


def _decoded_blocks(source: Source, function: Callable) -> Iterator[tuple[int, Any]]:
    """(id of the first image, `function` of BLOCK images) in order; shows the progress."""
    images = map_images(tf.data.Dataset.range(source.size), source, function, cores.decoding_threads())
    blocks = with_options(images.batch(BLOCK), source).as_numpy_iterator()
    with progress.bar(None, "decoding images", total=source.size, unit="image", leave=False) as bar:
        for start in range(0, source.size, BLOCK):
            block = next(blocks)
            yield start, block
            bar.update(len(block[0]))


def _small_image(image: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A small image → its shape [3] and its pixels. `batch` fails where the numbers of pixels differ."""
    shape = tf.shape(image)
    tf.debugging.assert_less_equal(shape[:2], MAX_SIDE)
    return shape, tf.reshape(image, [-1])


def sizes_differ(source: EncodedSource) -> bool:
    """Whether the headers, where they are known, tell that images cannot decode to one size."""
    if source.headers is None:
        return False
    known = source.headers[source.headers["reason"] == 0]
    sides = np.sort(np.stack([known["height"], known["width"]], axis=1), axis=1)
    return len(np.unique(sides, axis=0)) > 1
