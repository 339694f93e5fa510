"""Files of annotations in COCO's format, read once and checked before any image is opened."""

from __future__ import annotations

import collections
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_tf.data.sources.base import short_digest
from simsiam_tf.dense_tasks.annotations import IGNORE
from simsiam_tf.dense_tasks.coco_masks import Segmentation, check_segmentation, compact_polygon
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.display_text import one_line, printable_text
from simsiam_tf.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class CocoFile:
    """What a file of annotations says of its N images and their n objects.

    digest: of the file. file_names: of the images, as written. sizes: int64 [N, 2], width and height.
    class_names: of the categories, in the order of their ids. starts: int64 [N + 1]; the objects of image i
    are those from starts[i] up to starts[i + 1]. labels: int64 [n]. ignored: bool [n], crowds, and objects
    whose mask is asked for and missing. boxes: float32 [n, 4], as in `Annotated`; zeros where masks are asked
    for. segmentations: of all objects; empty where boxes are asked for.
    """

    digest: str
    file_names: tuple[str, ...]
    sizes: np.ndarray
    class_names: tuple[str, ...]
    starts: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    boxes: np.ndarray
    segmentations: list[Segmentation]


def read_coco_file(path: Path, masks: bool = False) -> CocoFile:
    """Reads and checks a file of annotations.

    masks: whether segmentations are read, and not boxes. The box of an object without one is then a region to
    ignore. Else objects without a box in their image are left out. A line on stderr counts these objects.

    Raises:
        UserError: the file cannot be read, is damaged, or refers to images or categories that it lacks.
    """
    shown = printable_text(str(path))
    with progress.announced(f"reading {shown} …"):
        content, digest = _load(path, shown, masks)
        ids, names, sizes = _images(content, shown)
        classes = _categories(content, shown)
        if masks and len(classes) >= IGNORE:
            raise UserError(f"{shown}: has {len(classes)} categories; a mask holds {IGNORE - 1} at most.")
        rows = _rows(content, "annotations", shown)
        number = {category: label for label, category in enumerate(classes)}
        labels = _references(rows, "category_id", number, shown)
        images = _references(rows, "image_id", {image: i for i, image in enumerate(ids)}, shown)
        ignored = np.array([bool(row.get("iscrowd")) for row in rows])
        boxes, segmentations = np.zeros((len(rows), 4), np.float32), []
        if not masks:
            boxes = _boxes(rows, sizes[images], shown)
        else:
            segmentations = _segmentations(rows, sizes[images], shown)
            for i in [i for i, found in enumerate(segmentations) if not len(found)]:
                ((left, top, right, bottom),) = _boxes(rows[i : i + 1], sizes[images[i : i + 1]], shown, i)
                segmentations[i] = [np.array([(left, top), (right, top), (right, bottom), (left, bottom)])]
                ignored[i] = True
    order = np.argsort(images, kind="stable")
    if not masks:
        order = order[(boxes[order, 2:] > boxes[order, :2]).all(axis=1)]
        _report(shown, len(rows) - len(order), "boxes without area in their image are left out")
    starts = np.searchsorted(images[order], np.arange(len(ids) + 1))
    return CocoFile(
        digest, names, sizes, tuple(classes.values()), starts,
        labels[order], ignored[order], boxes[order], [segmentations[i] for i in order] if masks else [],
    )  # fmt: skip


def _load(path: Path, shown: str, masks: bool) -> tuple[dict[str, Any], str]:
    """(content, digest of the file). Polygons are left out or, for masks, in less memory than as lists."""

    def compact(item: dict[str, Any]) -> dict[str, Any]:
        if not masks:
            item.pop("segmentation", None)
        elif isinstance(item.get("segmentation"), list):
            item["segmentation"] = [compact_polygon(polygon) for polygon in item["segmentation"]]
        return item

    try:
        data = path.read_bytes()
        digest = short_digest(data)
        text = data.decode(json.detect_encoding(data))
        del data  # as large as the text
        content = json.loads(text, object_hook=compact)
    except OSError as error:
        raise UserError(f"{shown}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{shown}: is damaged, or no JSON ({one_line(error)[:200]}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{shown}: is not in COCO's format: no object with images, annotations, categories.")
    return content, digest


def _rows(content: dict[str, Any], section: str, shown: str) -> list[dict[str, Any]]:
    rows = content.get(section)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{shown}: is not in COCO's format: no list {section!r} of objects.")
    if not rows:
        raise UserError(f"{shown}: its list {section!r} is empty.")
    return rows


def _column(rows: Sequence[dict], section: str, key: str, kind: Any, shown: str) -> list:
    """The values of a field of all rows, each of the type."""
    values = [row.get(key) for row in rows]
    bad = next((i for i, v in enumerate(values) if not isinstance(v, kind) or isinstance(v, bool)), None)
    if bad is not None:
        wanted = {int: "whole number", str: "text"}.get(kind, "number or text")
        raise UserError(f"{shown}: {section}[{bad}] has no {wanted} {key!r}: {one_line(values[bad])[:60]}.")
    return values


def _refuse_repeated(values: Sequence, what: str, shown: str) -> None:
    value, times = collections.Counter(values).most_common(1)[0]
    if times > 1:
        raise UserError(f"{shown}: has {times} {what} {one_line(value)}.")


def _images(content: dict[str, Any], shown: str) -> tuple[list[int | str], tuple[str, ...], np.ndarray]:
    """(ids, names of files, sizes) of the images."""
    rows = _rows(content, "images", shown)
    ids, names, widths, heights = (
        _column(rows, "images", key, kind, shown)
        for key, kind in (("id", int | str), ("file_name", str), ("width", int), ("height", int))
    )
    _refuse_repeated(ids, "images of the id", shown)
    _refuse_repeated(names, "images of the file", shown)
    empty = next((i for i, sides in enumerate(zip(widths, heights, strict=True)) if min(sides) < 1), None)
    if empty is not None:
        raise UserError(f"{shown}: images[{empty}] has no pixels: {widths[empty]}×{heights[empty]}.")
    return ids, tuple(names), np.array([widths, heights], np.int64).T


def _categories(content: dict[str, Any], shown: str) -> dict[int, str]:
    """Id → name, in the order of the ids."""
    rows = _rows(content, "categories", shown)
    ids = _column(rows, "categories", "id", int, shown)
    _refuse_repeated(ids, "categories of the id", shown)
    return dict(sorted(zip(ids, _column(rows, "categories", "name", str, shown), strict=True)))


def _references(rows: Sequence[dict], key: str, known: Mapping, shown: str) -> np.ndarray:
    """The index of the image or category that each annotation refers to: int64 [n]."""
    values = _column(rows, "annotations", key, int | str, shown)
    unknown = [value for value in values if value not in known]
    if unknown:
        raise UserError(
            f"{shown}: {len(unknown)} of its {len(rows)} annotations have an unknown {key}, such as "
            f"{one_line(unknown[0])}."
        )
    return np.array([known[value] for value in values], np.int64)


def _boxes(rows: Sequence[dict], sizes: np.ndarray, shown: str, first: int = 0) -> np.ndarray:
    """The left, top, right and lower edges of boxes, float32 [n, 4], clipped to images of these sizes.

    first: number of the first of these annotations, for messages.
    """
    try:
        boxes = np.array([row.get("bbox") for row in rows], np.float64).reshape(len(rows), 4)
    except (TypeError, ValueError):  # one of them has not four numbers
        boxes = np.array([_numbers(row.get("bbox")) for row in rows])
    wrong = np.flatnonzero(~np.isfinite(boxes).all(axis=1))
    if len(wrong):
        box = one_line(rows[wrong[0]].get("bbox"))[:60]
        raise UserError(f"{shown}: annotations[{first + wrong[0]}] has no box of four numbers: {box}.")
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    clipped = [corners[:, :2].clip(0), np.minimum(corners[:, 2:], sizes)]
    return np.concatenate(clipped, axis=1).astype(np.float32)


def _numbers(box: Any) -> tuple[float, ...]:
    """The four numbers of a box; NaN where these are none."""
    try:
        x, y, w, h = map(float, box)
        return x, y, w, h
    except (TypeError, ValueError):
        return (np.nan,) * 4


def _segmentations(rows: Sequence[dict], sizes: np.ndarray, shown: str) -> list[Segmentation]:
    """The segmentations of all annotations, empty where one has none; not all are empty."""
    checked = []
    for i, (row, (width, height)) in enumerate(zip(rows, sizes.tolist(), strict=True)):
        try:
            checked.append(check_segmentation(row.get("segmentation"), height, width))
        except ValueError as error:
            raise UserError(f"{shown}: annotations[{i}]: {error}.") from error
    if not any(map(len, checked)):
        raise UserError(f"{shown}: none of its annotations has a segmentation. Pass task=detection.")
    missing = sum(not len(found) for found in checked)
    _report(shown, missing, "annotations have no segmentation; their boxes are ignored")
    return checked


def _report(shown: str, count: int, what: str) -> None:
    if count:
        print(f"{shown}: {count} {what}", file=sys.stderr)
