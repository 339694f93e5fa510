"""The metrics of a detector or segmenter on test images."""

from __future__ import annotations

import numpy as np

from simsiam_tf.data import Views
from simsiam_tf.dense_tasks import detection_metrics, segmentation_metrics
from simsiam_tf.dense_tasks.annotations import Annotated, AnnotatedSet
from simsiam_tf.dense_tasks.batches import evaluation_batches
from simsiam_tf.dense_tasks.detection_metrics import METRICS, Detections
from simsiam_tf.dense_tasks.framing import Framing, Placement, in_image
from simsiam_tf.dense_tasks.models import DenseModel, Detector, Segmenter
from simsiam_tf.distributed.workers import Workers

check_metric = detection_metrics.check_metric
BATCH = 16
ROW = 6  # numbers of a detection: its box, its score, its class


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
    rows, numbers = [], []
    for x, truths in batches:
        for found in predicted_boxes(model, framing, x, truths):
            rows.append(np.concatenate([found.boxes, found.scores[:, None], found.labels[:, None]], axis=1))
            numbers.append(len(found.scores))
    # All workers compute the metrics from all detections, since each needs the result.
    rows = workers.all_gather(np.concatenate([*rows, np.zeros((0, ROW))]).astype(np.float64))
    numbers = workers.all_gather(np.array(numbers, np.int64))
    detections = [
        Detections(r[:, :4].astype(np.float32), r[:, 4].astype(np.float32), r[:, 5].astype(np.int64))
        for r in np.split(rows, np.cumsum(numbers)[:-1])
    ]
    truths = [images.read(i) for i in range(images.size)]
    return METRICS[metric](truths, detections, model.classes)


def predicted_boxes(model: Detector, framing: Framing, x, truths: list[Annotated]) -> list[Detections]:  # noqa: ANN001
    """The detections of a batch of `evaluation_batches`, in pixels of the images."""
    boxes, scores, labels, numbers = model.detections(x)
    found = []
    for i, truth in enumerate(truths):
        height, width = truth.image.shape[:2]
        n = int(numbers[i])
        in_pixels = in_image(boxes[i, :n], framing.whole(height, width), height, width)
        found.append(Detections(in_pixels.astype(np.float32), scores[i, :n], labels[i, :n]))
    return found


def predicted_masks(model: Segmenter, framing: Framing, x, truths: list[Annotated]) -> list[np.ndarray]:  # noqa: ANN001
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
