"""COCO's segmentations (polygons, run-length codes) as masks."""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from simsiam_tf.dense_tasks.annotations import IGNORE

Segmentation = list[np.ndarray] | np.ndarray  # polygons, float32 [n, 2] of x and y; or lengths of runs


def check_segmentation(value: Any, height: int, width: int) -> Segmentation:
    """A segmentation of the json, checked; an empty list where it has none.

    Raises:
        ValueError: it is damaged, or its run-length code is of another size; the message says which.
    """
    if not isinstance(value, dict):
        polygons = [_check_polygon(p) for p in _list_of(value or [], (list, array.array), "of polygons")]
        return [polygon for polygon in polygons if len(polygon) > 2]
    if value.get("size") != [height, width]:
        raise ValueError(f"its size is {value.get('size')}, not its image's [{height}, {width}]")
    counts = value.get("counts")
    counts = decompress(counts) if isinstance(counts, str) else _list_of(counts, (int,), "of counts")
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError(f"its counts do not sum to {height * width}, the pixels of its image")
    return np.array(counts, np.int64)


def decompress(text: str) -> list[int]:
    """The lengths of the runs of COCO's compressed run-length code (rleFrString in its maskApi.c).

    Raises ValueError where the code is cut off or holds other characters.
    """
    # NOTE: not pycocotools' decode, which fills what a code that is cut off leaves out with whatever the
    # memory holds.
    counts: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"its compressed counts hold {character!r}")
        number |= (bits & 31) << shift  # five bits each, the lowest first
        shift += 5
        if not bits & 32:  # the last of a number, whose highest bit is its sign
            number -= (bits & 16) << (shift - 4)
            counts.append(number + (counts[-2] if len(counts) > 2 else 0))  # a difference, from the fourth on
            number = shift = 0
    if shift:
        raise ValueError("its compressed counts are cut off")
    return counts


def compact_polygon(numbers: Any) -> Any:
    """A polygon of the json in an eighth of the memory; what is none unchanged, for `check_segmentation`."""
    try:
        return array.array("f", numbers) if isinstance(numbers, list) else numbers
    except (TypeError, OverflowError):
        return numbers


def _list_of(value: Any, kinds: tuple[type, ...], what: str) -> list:
    if not isinstance(value, list) or not all(type(item) in kinds for item in value):
        raise ValueError(f"its segmentation is no list {what}")
    return value


def _check_polygon(numbers: Sequence) -> np.ndarray:
    try:
        points = np.array(numbers, np.float32).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise ValueError("its polygon is no list of x, y, x, y, …") from error
    if not np.isfinite(points).all():
        raise ValueError("its polygon has a number that is not finite")
    return points


def decode_segmentation(segmentation: Segmentation, height: int, width: int) -> np.ndarray:
    """The pixels of an object: bool [height, width]."""
    if isinstance(segmentation, np.ndarray):
        runs = np.repeat(np.arange(len(segmentation)) % 2 == 1, segmentation)
        return runs.reshape(width, height).T  # columns first
    mask = np.zeros((height, width), bool)
    for polygon in segmentation:
        mask |= polygon_mask(polygon, height, width)
    return mask


def polygon_mask(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels whose centres lie inside a polygon (even-odd rule): bool [height, width].

    points: float [n, 2], x and y in pixels, 0 at the left and top edge of the image.
    """
    # NOTE: not Pillow's polygon, which cuts coordinates off to integers and paints the outline too: a square
    # of 4 × 4 becomes 5 × 5 pixels.
    start = points.astype(np.float64)
    end = np.roll(start, -1, axis=0)
    first, last = (  # rows whose centres an edge crosses: first ≤ row < last
        np.clip(np.ceil(f(start[:, 1], end[:, 1]) - 0.5), 0, height).astype(int)
        for f in (np.minimum, np.maximum)
    )
    counts = last - first
    edge = np.repeat(np.arange(len(start)), counts)
    row = np.arange(counts.sum()) + np.repeat(first - np.cumsum(counts) + counts, counts)
    (x, y), (dx, dy) = start[edge].T, (end - start)[edge].T
    column = np.clip(np.ceil(x + (row + 0.5 - y) * dx / dy - 0.5), 0, width).astype(int)
    crossed = np.zeros((height, width + 1), bool)
    np.logical_xor.at(crossed, (row, column), True)
    return np.logical_xor.accumulate(crossed, axis=1)[:, :width]


def semantic_mask(
    segmentations: Sequence[Segmentation], values: np.ndarray, height: int, width: int
) -> np.ndarray:
    """The value of the object that is seen at each pixel: uint8 [height, width], 0 where there is none.

    Smaller objects cover larger ones, and all cover those of value `IGNORE`.
    """
    pixels = [np.flatnonzero(decode_segmentation(one, height, width)) for one in segmentations]
    mask = np.zeros(height * width, np.uint8)
    for i in sorted(range(len(values)), key=lambda i: (values[i] != IGNORE, -len(pixels[i]))):
        mask[pixels[i]] = values[i]
    return mask.reshape(height, width)
