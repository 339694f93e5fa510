"""Pictures of what a detector or segmenter learns from, and of what it predicts beside the truth."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_tf.data import Views, preview
from simsiam_tf.dense_tasks.annotations import IGNORE, AnnotatedSet
from simsiam_tf.dense_tasks.drawing import draw, places_in_rows, side_by_side
from simsiam_tf.dense_tasks.framing import Framing
from simsiam_tf.dense_tasks.models import DenseModel, Detector, Segmenter
from simsiam_tf.dense_tasks.scores import predicted_boxes, predicted_masks
from simsiam_tf.dense_tasks.square_batches import evaluation_batches
from simsiam_tf.runtime.atomic_files import atomic_write_text

PICTURE = Path("export") / "predictions.png"
OBJECTS = PICTURE.with_suffix(".json")  # what PICTURE shows, and where
ROWS = 8
SHOWN_SCORE = 0.3  # least score of boxes in a picture
NAMED = 8  # most classes that are named of a picture


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A picture with boxes or a mask.

    pixels: uint8 [H, W, 3]. objects: the classes in words, such as "2 × bag, boot", "boot 87 %" with a score,
    or of a mask "boot 12 %" of the pixels; empty without any.
    """

    pixels: np.ndarray
    objects: str


@dataclasses.dataclass(frozen=True)
class ShownImage:
    """A test image with its truth and with what is predicted. index: its id in the test set."""

    index: int
    truth: Drawn
    prediction: Drawn


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


def test_pictures(
    model: DenseModel, images: AnnotatedSet, framing: Framing, views: Views, names: Sequence[str]
) -> list[ShownImage]:
    """Test images, evenly spaced, with their truth, without ignored boxes, and with what is predicted."""
    ids = np.linspace(0, images.size - 1, min(ROWS, images.size)).astype(int)
    pairs = []
    for x, truths in evaluation_batches(images, framing, views, ids, ROWS):
        if isinstance(model, Segmenter):
            for truth, mask in zip(truths, predicted_masks(model, framing, x, truths), strict=True):
                assert truth.mask is not None
                pairs.append([_with_mask(truth.image, m, names) for m in (truth.mask, mask)])
            continue
        assert isinstance(model, Detector)
        for truth, found in zip(truths, predicted_boxes(model, framing, x, truths), strict=True):
            sure = found.scores >= SHOWN_SCORE
            pairs.append([
                _with_boxes(
                    truth.image, truth.boxes[~truth.ignored], truth.labels[~truth.ignored], None, names
                ),
                _with_boxes(truth.image, found.boxes[sure], found.labels[sure], found.scores[sure], names),
            ])  # fmt: skip
    return [ShownImage(int(i), *pair) for i, pair in zip(ids, pairs, strict=True)]


test_pictures.__test__ = False  # for pytest
NO_BOXES, NO_LABELS = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)


def _with_mask(image: np.ndarray, mask: np.ndarray, names: Sequence[str]) -> Drawn:
    counts = np.bincount(mask.ravel(), minlength=IGNORE)[:IGNORE]
    values = [v for v in np.argsort(-counts, kind="stable").tolist() if v and counts[v]]
    parts = [f"{names[v]} {_percent(float(counts[v] / counts.sum()))}" for v in values]
    return Drawn(draw(image, NO_BOXES, NO_LABELS, mask=mask, class_names=names), _listed(parts))


def _with_boxes(
    image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray | None, names: Sequence[str]
) -> Drawn:
    if scores is None:
        numbers: collections.Counter[int] = collections.Counter(labels.tolist())
        parts = [names[label] if n == 1 else f"{n} × {names[label]}" for label, n in numbers.items()]
    else:
        scored = sorted(zip(scores.tolist(), labels.tolist(), strict=True), key=lambda pair: -pair[0])
        parts = [f"{names[label]} {_percent(score)}" for score, label in scored]
    return Drawn(draw(image, boxes, labels, scores, class_names=names), _listed(parts))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "< 1 %"


def _listed(parts: Sequence[str]) -> str:
    more = [f"{len(parts) - NAMED} more"] if len(parts) > NAMED else []
    return ", ".join([*parts[:NAMED], *more])


def write_shown(workdir: Path, shown: Sequence[ShownImage]) -> None:
    """Writes the images as one picture, a row each, and beside it what each row shows."""
    rows = [(image.truth.pixels, image.prediction.pixels) for image in shown]
    about = [
        {
            "image": image.index,
            "truth": {"place": places[0], "objects": image.truth.objects},
            "prediction": {"place": places[1], "objects": image.prediction.objects},
        }
        for image, places in zip(shown, places_in_rows(rows), strict=True)
    ]
    (workdir / PICTURE).parent.mkdir(exist_ok=True)
    preview.write_picture(workdir / PICTURE, side_by_side(rows))
    atomic_write_text(workdir / OBJECTS, json.dumps(about, indent=1) + "\n")


def read_shown(workdir: Path, sheet: np.ndarray) -> list[ShownImage]:
    """The images that `write_shown` wrote; empty where `OBJECTS` is missing or damaged.

    sheet: the content of `PICTURE`, uint8 [H, W, 3].
    """

    def drawn(about: dict[str, Any]) -> Drawn:
        left, top, right, lower = about["place"]
        if not (0 <= left < right <= sheet.shape[1] and 0 <= top < lower <= sheet.shape[0]):
            raise ValueError("a place outside the picture")
        return Drawn(sheet[top:lower, left:right], str(about["objects"]))

    try:
        rows = json.loads((workdir / OBJECTS).read_text(encoding="utf-8"))
        return [ShownImage(int(row["image"]), drawn(row["truth"]), drawn(row["prediction"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _coloured(images: np.ndarray) -> np.ndarray:
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images
