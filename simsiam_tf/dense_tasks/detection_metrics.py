"""Average precision of detections, as COCO (by pycocotools) and as PASCAL VOC define it; no TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from simsiam_tf.runtime.errors import UserError, nearest

IOU = np.arange(50, 100, 5) / 100  # 0.50, 0.55 … 0.95: the thresholds of IoU that AP is a mean over
_NAMES = {"AP": slice(None), "AP50": slice(0, 1), "AP75": slice(5, 6)}  # the thresholds of each metric
MAX_DETECTIONS = 100  # of a class in an image, as pycocotools counts


class Truth(Protocol):
    """The boxes of an image. `Annotated` is one; a metric needs no image."""

    @property
    def boxes(self) -> np.ndarray:
        """float32 [n, 4]: left, top, right and lower edge in pixels."""
        ...

    @property
    def labels(self) -> np.ndarray:
        """int64 [n], in 0 … classes − 1."""
        ...

    @property
    def ignored(self) -> np.ndarray:
        """bool [n], boxes that count neither as found nor as missed."""
        ...


@dataclasses.dataclass(frozen=True)
class Detections:
    """What a detector finds in an image, in any order.

    boxes: float32 [n, 4]: left, top, right and lower edge in pixels of the original image.
    scores: float32 [n], the higher the surer. labels: int64 [n], classes from 0.

    Raises:
        ValueError: the numbers of boxes, scores and labels differ, or a value is not finite.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.scores)
        if (self.boxes.shape, self.scores.shape, self.labels.shape) != ((count, 4), (count,), (count,)):
            raise ValueError(
                "Detections: boxes must be [n, 4], scores and labels [n]. Received: boxes "
                f"{self.boxes.shape}, scores {self.scores.shape}, labels {self.labels.shape}"
            )
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            raise ValueError(
                "Detections: boxes and scores must be finite; some are infinite or not a number."
            )


def average_precision(
    truths: Sequence[Truth], detections: Sequence[Detections], classes: int
) -> dict[str, float]:
    """AP, AP50 and AP75 in [0, 1] as COCO defines them, by pycocotools.

    AP is the mean over the IoU thresholds 0.50, 0.55 … 0.95 and over the classes that have truths, of the
    precision at 101 points of recall; AP50 and AP75 are those at one threshold. Of each class, the 100
    detections of the highest score in an image count. Ignored boxes are COCO's crowds: detections of which
    the threshold's share lies in one are left out. Without any truth the metrics are NaN.

    truths, detections: one for each image, in the same order.

    Raises:
        UserError: pycocotools is missing. ValueError: numbers of images differ, or a label is not a class.
    """
    _check_sets(truths, detections, classes)
    COCO, COCOeval = import_pycocotools()

    def coco(annotations: list[dict]) -> Any:
        dataset = COCO()
        dataset.dataset = {
            "images": [{"id": image} for image in range(len(truths))],
            "categories": [{"id": label} for label in range(classes)],
            "annotations": annotations,
        }
        dataset.createIndex()
        return dataset

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(
            coco(_annotations(truths, "iscrowd", (truth.ignored for truth in truths))),
            coco(_annotations(detections, "score", (found.scores for found in detections))),
            "bbox",
        )
        parameters = evaluation.params
        parameters.maxDets = [MAX_DETECTIONS]
        parameters.areaRng, parameters.areaRngLbl = parameters.areaRng[:1], parameters.areaRngLbl[:1]  # all
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, 0]  # [thresholds, recalls, classes]
    has_truths = (precision > -1).all(axis=(0, 1))  # pycocotools writes −1 for the other classes
    return _metrics(precision[..., has_truths])


def voc_average_precision(
    truths: Sequence[Truth], detections: Sequence[Detections], classes: int, points: int | None = None
) -> dict[str, float]:
    """AP, AP50 and AP75 in [0, 1] as PASCAL VOC defines average precision; AP is the mean over COCO's IoUs.

    AP50 is VOC's metric. Detectron2, and with it Table 5 of the SimSiam paper, reports all three for VOC, by
    11 points.

    Each detection, the highest score first, is compared with the truth of its class of which it has the
    largest IoU. Where this IoU reaches the threshold, the first detection of a truth is right, further ones
    are wrong, and those of an ignored (difficult) truth are left out; elsewhere it is wrong. The mean is over
    the classes that have truths that are not ignored; without any it is NaN.

    NOTE: widths are right − left. VOC's development kit, whose edges are the numbers of the outermost pixels,
    and Detectron2 add 1; Detectron2 also wants an IoU above the threshold, not equal to it.

    points: None for the area under the precision made monotone (VOC 2010 and later); 11 for the mean of that
        precision at the recalls 0, 0.1 … 1 (VOC 2007; Everingham et al. 2010, Eq. 1 and 2).

    Raises:
        ValueError: numbers of images differ, or a label is not a class.
    """
    return _metrics(_voc_precisions(truths, detections, classes, points, IOU))


def voc_ap50(
    truths: Sequence[Truth], detections: Sequence[Detections], classes: int, points: int | None = None
) -> float:
    """VOC's AP50 alone, in [0, 1]: the "AP50" of `voc_average_precision`."""
    return _metrics(_voc_precisions(truths, detections, classes, points, IOU[:1]))["AP50"]


METRICS: dict[str, Callable[..., dict[str, float]]] = {  # (truths, detections, classes) → metrics
    "coco": average_precision,
    "voc": voc_average_precision,  # VOC 2010 and later
    "voc2007": functools.partial(voc_average_precision, points=11),
}


def check_metric(name: str) -> None:
    """Raises UserError where METRICS has no such row, or the library that it needs is missing.

    For the start of a command: a run must not end, and its metrics must not change, by what is installed.
    """
    if name not in METRICS:
        raise UserError(f"metric={name}: no such value.{nearest(name, METRICS)}")
    if name == "coco":
        import_pycocotools()


def import_pycocotools() -> tuple[Any, Any]:
    """The classes COCO and COCOeval. Raises UserError where pycocotools cannot be imported."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except (ImportError, ValueError) as error:  # ValueError: built for another NumPy
        raise UserError(
            "metric=coco: needs pycocotools: pip install 'simsiam-tf[coco]'. Or pass metric=voc."
        ) from error
    return COCO, COCOeval


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union, in [0, 1], of boxes [n, 4] with boxes [m, 4]: float64 [n, m]."""
    a, b = np.asarray(a, np.float64)[:, None], np.asarray(b, np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    intersection = np.prod(np.maximum(sides, 0), axis=-1)
    areas = np.prod(a[..., 2:] - a[..., :2], axis=-1) + np.prod(b[..., 2:] - b[..., :2], axis=-1)
    union = areas - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=intersection > 0)


def _voc_precisions(
    truths: Sequence[Truth],
    detections: Sequence[Detections],
    classes: int,
    points: int | None,
    thresholds: np.ndarray,
) -> np.ndarray:
    """VOC's average precision by threshold of IoU and class with truths: float64 [thresholds, classes]."""
    _check_sets(truths, detections, classes)
    counted = [truth.labels[~truth.ignored] for truth in truths]
    positives = np.bincount(np.concatenate([*counted, np.zeros(0, np.int64)]), minlength=classes)
    rows = []
    if positives.any():
        label, overlap, truth, ignored = _voc_matches(truths, detections)
        for c in np.flatnonzero(positives):
            iou, its_truth, its_ignored = (values[label == c] for values in (overlap, truth, ignored))
            rows.append(
                [_voc_precision(iou >= t, its_truth, its_ignored, positives[c], points) for t in thresholds]
            )
    return np.reshape(rows, (-1, len(thresholds))).T


def _voc_matches(
    truths: Sequence[Truth], detections: Sequence[Detections]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The truth of its class of which each detection has the largest IoU; the highest score first.

    Returns the detection's label int [n], this IoU float64 [n], the truth's number int [n], and whether the
    truth is ignored bool [n].
    """
    overlaps, numbers, ignored = [], [], []
    first = 0  # number of an image's first truth
    for truth, found in zip(truths, detections, strict=True):
        iou = box_iou(found.boxes, truth.boxes) * (found.labels[:, None] == truth.labels)
        iou = np.pad(
            iou, [(0, 0), (1, 0)]
        )  # column 0: a truth that nothing overlaps, where there is no other
        best = iou.argmax(axis=1)
        overlaps.append(iou.max(axis=1))
        numbers.append(first + best)
        ignored.append(np.r_[False, truth.ignored][best])
        first += iou.shape[1]
    order = np.argsort(-np.concatenate([found.scores for found in detections]), kind="stable")
    values = [found.labels for found in detections], overlaps, numbers, ignored
    label, overlap, number, ignore = (np.concatenate(arrays)[order] for arrays in values)
    return label, overlap, number, ignore


def _voc_precision(
    matched: np.ndarray, truth: np.ndarray, ignored: np.ndarray, positives: int, points: int | None
) -> float:
    """Average precision of n detections in the order of their scores.

    matched: bool [n], whether the largest IoU reaches the threshold. truth: int [n], the truth of that IoU.
    ignored: bool [n], whether that truth is ignored. positives: number of truths that are not, above 0.
    """
    counts = ~(matched & ignored)
    matched, truth = matched[counts], truth[counts]
    _, first = np.unique(truth[matched], return_index=True)
    right = np.zeros(len(matched), bool)
    right[np.flatnonzero(matched)[first]] = True
    recall = right.cumsum() / positives
    precision = right.cumsum() / np.arange(1, 1 + len(right))
    highest = np.maximum.accumulate(precision[::-1])[::-1]  # precision at this recall or a higher one
    if points is None:
        return float(np.diff(recall, prepend=0.0) @ highest)
    rows = np.searchsorted(recall, np.arange(points) / (points - 1))
    return float(np.r_[highest, 0.0][rows].mean())


def _metrics(by_threshold: np.ndarray) -> dict[str, float]:
    """Means over the precisions [thresholds, …] of the thresholds of each metric; NaN of none."""
    rows = {name: by_threshold[chosen] for name, chosen in _NAMES.items()}
    return {name: float(row.mean()) if row.size else float("nan") for name, row in rows.items()}


def _annotations(images: Sequence[Any], key: str, values: Iterable[np.ndarray]) -> list[dict]:
    """COCO's annotations of images with `boxes` and `labels`. key, values: a further field, [n] an image."""
    rows = []
    for image, (boxes, extra) in enumerate(zip(images, values, strict=True)):
        corners = boxes.boxes.astype(np.float64)
        sides = np.c_[corners[:, :2], corners[:, 2:] - corners[:, :2]].tolist()
        for box, label, value in zip(sides, boxes.labels.tolist(), extra.tolist(), strict=True):
            row = {"id": 1 + len(rows), "image_id": image, "category_id": label}  # pycocotools: 0 is no id
            rows.append(row | {"bbox": box, "area": box[2] * box[3], key: value})
    return rows


def _check_sets(truths: Sequence[Truth], detections: Sequence[Detections], classes: int) -> None:
    """Raises ValueError where the numbers of images differ, or a label is not a class."""
    if len(truths) != len(detections):
        raise ValueError(
            f"Truths and detections must be of the same images. Received: {len(truths)} and {len(detections)}"
        )
    for title, images in (("truth", truths), ("detection", detections)):
        for image, boxes in enumerate(images):
            wrong = boxes.labels[(boxes.labels < 0) | (boxes.labels >= classes)]
            if len(wrong):
                raise ValueError(
                    f"Image {image}: the label of a {title} must be in 0 … {classes - 1}. "
                    f"Received: {wrong[0]}"
                )
