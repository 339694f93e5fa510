"""The metrics of a detector or segmenter on test images."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from simsiam_tf.data import Views
from simsiam_tf.dense_tasks import detection_metrics, segmentation_metrics
from simsiam_tf.dense_tasks.annotations import Annotated, AnnotatedSet
from simsiam_tf.dense_tasks.detection_metrics import METRICS, Detections
from simsiam_tf.dense_tasks.framing import Framing, Placement, in_image
from simsiam_tf.dense_tasks.models import DenseModel, Detector, Segmenter
from simsiam_tf.dense_tasks.square_batches import evaluation_batches
from simsiam_tf.distributed.workers import Workers

check_metric = detection_metrics.check_metric
BATCH = 16
ROW = 6  # numbers of a box in a list: its edges, its score or whether it is ignored, its class


def evaluate(
    model: DenseModel,
    images: AnnotatedSet,
    framing: Framing,
    views: Views,
    workers: Workers,
    metric: str = "coco",
) -> dict[str, float]:
    """Metrics in [0, 1]: of detections those of `METRICS[metric]`, of masks "mIoU" and "pixel accuracy".

    Each image is measured at its own size; each worker predicts its share.
    """
    ids = workers.shard(np.arange(images.size))
    batches = evaluation_batches(images, framing, views, ids, BATCH)
    if isinstance(model, Segmenter):
        counts = np.zeros((model.classes, model.classes), np.int64)
        for x, truths in batches:
            for mask, truth in zip(predicted_masks(model, framing, x, truths), truths, strict=True):
                assert truth.mask is not None
                counts += segmentation_metrics.confusion(truth.mask, mask, model.classes)
        return segmentation_metrics.scores(workers.all_gather(counts[None]).sum(axis=0))
    assert isinstance(model, Detector)
    truths_rows, found_rows = [], []  # of each image; the images themselves are not kept
    for x, truths in batches:
        truths_rows += [_rows(t.boxes, t.ignored, t.labels) for t in truths]
        found_rows += [_rows(f.boxes, f.scores, f.labels) for f in predicted_boxes(model, framing, x, truths)]
    # All workers compute the metrics of all images, since each needs the result.
    gathered = (_gathered(rows, workers) for rows in (truths_rows, found_rows))
    no_image = np.zeros((0, 0, 3), np.uint8)
    pairs = [
        (Annotated(no_image, t[0], t[2], t[1] > 0), Detections(*found))
        for t, found in zip(*gathered, strict=True)
    ]
    return METRICS[metric](*zip(*pairs, strict=True), model.classes)


def _rows(boxes: np.ndarray, values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Boxes of an image with a value and a class each, as numbers: [n, 6]."""
    return np.concatenate([boxes, values[:, None], labels[:, None]], axis=1).astype(np.float64)


def _gathered(images: list[np.ndarray], workers: Workers) -> list[tuple[np.ndarray, ...]]:
    """Of each image of all workers the three arguments of `_rows`."""
    numbers = workers.all_gather(np.array([len(rows) for rows in images], np.int64))
    rows = workers.all_gather(np.concatenate([*images, np.zeros((0, ROW))]))
    split = np.split(rows, np.cumsum(numbers)[:-1])
    return [
        (r[:, :4].astype(np.float32), r[:, 4].astype(np.float32), r[:, 5].astype(np.int64)) for r in split
    ]


def predicted_boxes(
    model: Detector, framing: Framing, x: tf.Tensor, truths: list[Annotated]
) -> list[Detections]:
    """The detections of a batch of `evaluation_batches`, in pixels of the images."""
    boxes, scores, labels, numbers = model.detections(x)
    found = []
    for i, truth in enumerate(truths):
        height, width = truth.image.shape[:2]
        n = int(numbers[i])
        in_pixels = in_image(boxes[i, :n], framing.whole(height, width), height, width)
        known = np.isfinite(in_pixels).all(axis=1)  # a code of a hardly trained network may overflow
        kept = in_pixels[known].astype(np.float32), scores[i, :n][known], labels[i, :n][known]
        found.append(Detections(*kept))
    return found


def predicted_masks(
    model: Segmenter, framing: Framing, x: tf.Tensor, truths: list[Annotated]
) -> list[np.ndarray]:
    """The masks of a batch of `evaluation_batches`, uint8 [H, W] of the images' sizes."""
    masks = model.masks(x)
    return [
        _at_size(mask, framing.whole(*truth.image.shape[:2]), *truth.image.shape[:2])
        for mask, truth in zip(masks, truths, strict=True)
    ]


def _at_size(mask: np.ndarray, placement: Placement, height: int, width: int) -> np.ndarray:
    """The mask of a square as one of its image: each pixel takes that in which its centre lies."""
    _, _, columns, rows = placement.place
    i = ((np.arange(height) + 0.5) * rows / height).astype(int)
    j = ((np.arange(width) + 0.5) * columns / width).astype(int)
    return mask[i[:, None], j]
