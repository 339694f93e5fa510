"""Batches of squares with boxes or masks: for training each a function of the step, for evaluation of ids."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from simsiam_tf.data import Views, sampling
from simsiam_tf.data.mapping import map_each, with_options
from simsiam_tf.dense_tasks.annotations import Annotated, AnnotatedSet
from simsiam_tf.dense_tasks.framing import DRAWS, Framing
from simsiam_tf.runtime import cores
from simsiam_tf.runtime.display_text import one_line
from simsiam_tf.runtime.errors import UserError

MOST_BOXES = 100  # of a square; of more, the largest are kept
PARALLEL: int | None = cores.decoding_threads()
PREFETCHED = 2  # batches


@dataclasses.dataclass(frozen=True)
class TrainingBatches:
    """The batches of a training run, each a function of the step alone.

    Dataset elements are dictionaries: "views", one × float32 [rows, S, S, C], normalised; "index", ids of the
    images, int64 [rows]; "target": for masks uint8 [rows, S, S], for boxes a pair, float32
    [rows, `MOST_BOXES`, 4] in pixels of the square and int32 [rows, `MOST_BOXES`] of classes, −1 where there
    is no further box.

    Args:
        images: the annotated images.
        framing: how squares are cut.
        views: their normalisation.
        masks: whether targets are masks.
        batch_size, seed, rows, elements_per_step: as for `data.pipeline.StepBatches`.
    """

    images: AnnotatedSet
    framing: Framing
    views: Views
    masks: bool
    batch_size: int
    seed: int
    rows: tuple[int, int]
    elements_per_step: int = 1

    def dataset(self, first_step: int, last_step: int) -> tf.data.Dataset:
        """The elements of steps first_step to last_step − 1, in order."""
        start, stop = self.rows
        size = (stop - start) // self.elements_per_step

        def rows_of(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            ids = sampling.example_ids(self.seed, step, self.batch_size, self.images.size)
            u = sampling.uniforms(self.seed, step, self.batch_size, DRAWS)
            return ids[start:stop], u[start:stop]

        def square(i: tf.Tensor, u: tf.Tensor) -> tuple:
            types: Any = (tf.uint8, tf.uint8) if self.masks else (tf.uint8, tf.float32, tf.int32)
            made = tf.numpy_function(self._square, [i, u], types)
            side, channels = self.framing.size, self.framing.channels
            shapes = [(side, side, channels), *target_shapes(self.masks, side)]
            return i, *(tf.ensure_shape(x, shape) for x, shape in zip(made, shapes, strict=True))

        steps = tf.data.Dataset.range(first_step, last_step)
        made = map_each(map_each(steps, rows_of).unbatch(), square, PARALLEL)

        def element(i: tf.Tensor, x: tf.Tensor, *target: tf.Tensor) -> dict[str, Any]:
            found = target[0] if self.masks else target
            return {"views": (self.views.normalise(x),), "index": i, "target": found}

        batched = map_each(made.batch(size, drop_remainder=True), element)
        return with_options(batched).prefetch(PREFETCHED)

    def _square(self, index: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, ...]:
        annotated = _readable(self.images, int(index))
        height, width = annotated.image.shape[:2]
        placement = self.framing.random(height, width, u)
        image = self.framing.image(annotated.image, placement)
        if self.masks:
            assert annotated.mask is not None
            return image, self.framing.mask(annotated.mask, placement)
        return image, *padded(*self.framing.boxes(annotated, placement))


def target_shapes(masks: bool, side: int) -> list[tuple[int, ...]]:
    """The shapes of an image's target."""
    return [(side, side)] if masks else [(MOST_BOXES, 4), (MOST_BOXES,)]


def padded(boxes: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [n, 4] and labels [n] → float32 [`MOST_BOXES`, 4] and int32 [`MOST_BOXES`], filled up with −1."""
    if len(boxes) > MOST_BOXES:
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        kept = np.sort(np.argsort(-area, kind="stable")[:MOST_BOXES])
        boxes, labels = boxes[kept], labels[kept]
    all_boxes, all_labels = np.full((MOST_BOXES, 4), -1, np.float32), np.full(MOST_BOXES, -1, np.int32)
    all_boxes[: len(boxes)], all_labels[: len(labels)] = boxes, labels
    return all_boxes, all_labels


def evaluation_batches(
    images: AnnotatedSet, framing: Framing, views: Views, ids: np.ndarray, batch_size: int
) -> Iterator[tuple[tf.Tensor, list[Annotated]]]:
    """Batches of whole images: (normalised squares [B, S, S, C], the images with their annotations)."""
    for start in range(0, len(ids), batch_size):
        try:
            truths = [_readable(images, int(i)) for i in ids[start : start + batch_size]]
        except OSError as error:
            raise UserError(f"a test image cannot be read: {error.filename}: {error.strerror}") from error
        squares = [framing.image(t.image, framing.whole(*t.image.shape[:2])) for t in truths]
        yield views.normalise(tf.constant(np.stack(squares))), truths


def _readable(images: AnnotatedSet, index: int) -> Annotated:
    """An image. Raises OSError with the name of the file, or of the set, where it cannot be read.

    No other may stand in for it: a batch is a function of the step alone.
    """
    try:
        return images.read(index)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.filename and error.strerror:
            raise
        raise OSError(errno.EIO, one_line(error), images.name) from error
