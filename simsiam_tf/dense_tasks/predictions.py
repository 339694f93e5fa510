"""Pictures of what a detector or segmenter learns from, and of what it predicts beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_tf.data import Views, preview
from simsiam_tf.dense_tasks.annotations import AnnotatedSet
from simsiam_tf.dense_tasks.drawing import draw, side_by_side
from simsiam_tf.dense_tasks.framing import Framing
from simsiam_tf.dense_tasks.models import DenseModel, Detector, Segmenter
from simsiam_tf.dense_tasks.scores import predicted_boxes, predicted_masks
from simsiam_tf.dense_tasks.square_batches import evaluation_batches

PICTURE = Path("export") / "predictions.png"
ROWS = 8
SHOWN_SCORE = 0.3  # least score of boxes in a picture
write = preview.write_picture


def training_picture(batch: dict[str, Any], views: Views, names: Sequence[str]) -> np.ndarray:
    """The squares of a training batch with their targets, two in a row."""
    squares = _coloured(views.denormalise(batch["views"][0]).numpy())
    target, pictures = batch["target"], []
    for i, square in enumerate(squares):
        if isinstance(target, tuple):
            boxes, labels = (t.numpy()[i] for t in target)
            pictures.append(draw(square, boxes[labels >= 0], labels[labels >= 0], class_names=names))
        else:
            pictures.append(draw(square, NO_BOXES, NO_LABELS, mask=target.numpy()[i], class_names=names))
    return side_by_side(list(zip(pictures[::2], pictures[1::2], strict=False)))


def test_picture(
    model: DenseModel, images: AnnotatedSet, framing: Framing, views: Views, names: Sequence[str]
) -> np.ndarray:
    """Rows of a test image with its truth, and with what is predicted."""
    ids = np.linspace(0, images.size - 1, min(ROWS, images.size)).astype(int)
    rows = []
    for x, truths in evaluation_batches(images, framing, views, ids, ROWS):
        if isinstance(model, Segmenter):
            for truth, mask in zip(truths, predicted_masks(model, framing, x, truths), strict=True):
                assert truth.mask is not None
                both = truth.mask, mask
                rows.append([draw(truth.image, NO_BOXES, NO_LABELS, mask=m, class_names=names) for m in both])
            continue
        assert isinstance(model, Detector)
        for truth, found in zip(truths, predicted_boxes(model, framing, x, truths), strict=True):
            sure = found.scores >= SHOWN_SCORE
            boxes, labels, scores = found.boxes[sure], found.labels[sure], found.scores[sure]
            rows.append([
                draw(truth.image, truth.boxes, truth.labels, class_names=names),
                draw(truth.image, boxes, labels, scores, class_names=names),
            ])  # fmt: skip
    return side_by_side(rows)


test_picture.__test__ = False  # for pytest
NO_BOXES, NO_LABELS = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)


def _coloured(images: np.ndarray) -> np.ndarray:
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images
