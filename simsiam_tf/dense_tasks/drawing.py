"""Pictures of boxes and masks on images."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from simsiam_tf.dense_tasks.annotations import IGNORE
from simsiam_tf.runtime.display_text import one_line

SMALL, LARGE = 256, 512  # pixels of the longer side, below and above which a picture changes its size
LINE, TEXT, GAP = 3, 13, 4  # pixels of a box's line, of a letter, of the white around a picture
Pair = tuple[np.ndarray, np.ndarray]
Place = tuple[int, int, int, int]
# Paul Tol's scheme "bright", safe for colour-blind readers (SRON/EPS/TN/09-002), as in curation_page; then
# these colours mixed half with white, and half with black.
_BRIGHT = np.array(
    [ImageColor.getrgb(c) for c in ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")]
)
COLOURS = np.concatenate([_BRIGHT, (_BRIGHT + 255) // 2, _BRIGHT // 2]).astype(np.uint8)  # [18, 3]
NO_TRUTH = np.array(ImageColor.getrgb("#8b949c"), np.uint8)  # of pixels without truth


def colour(label: int) -> tuple[int, int, int]:
    """The RGB colour of a class from 0; the 19th has that of the first."""
    red, green, blue = COLOURS[label % len(COLOURS)].tolist()
    return red, green, blue


def draw(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    class_names: Sequence[str] = (),
) -> np.ndarray:
    """An image with its boxes, and a mask half transparent on it: uint8 [H', W', 3].

    Where the longer side is below 256 pixels, each pixel becomes a square, by the least whole factor with
    which that side reaches 256; where it is above 512, the image is made smaller, to 512. Lines and names are
    of the same size on all.

    image: uint8 [H, W, 3].
    boxes: [n, 4], left, top, right and lower edge in pixels of the image, at whose edges they are cut.
    labels: int [n].
    scores: [n] in [0, 1], written in per cent; boxes of higher scores lie above others.
    mask: uint8 [H, W]. The background, 0, stays as it is; `IGNORE` becomes gray; class c has the colour of
        the label c − 1.
    class_names: of boxes by label; without boxes, of the mask by value (the background first), written on
        each class. Letters beyond ASCII lose their accents or are left out; a class without a name is written
        as its number.

    Raises:
        ValueError: image and mask, or boxes, labels and scores, differ in size or number.
    """
    count = len(labels)
    scores_shape = (count,) if scores is None else scores.shape
    if boxes.shape != (count, 4) or scores_shape != (count,):
        raise ValueError(
            "boxes must be [n, 4], labels and scores [n]. Received: boxes "
            f"{boxes.shape}, labels {labels.shape}, scores {scores_shape}"
        )
    if mask is not None and mask.shape != image.shape[:2]:
        raise ValueError(f"The mask must have the image's size. Received: {mask.shape} for {image.shape}")
    longer = max(image.shape[:2])
    zoom = LARGE / longer if longer > LARGE else max(1, -(-SMALL // longer))
    size = [max(1, round(zoom * side)) for side in image.shape[1::-1]]
    canvas = Image.fromarray(np.ascontiguousarray(image if mask is None else _with_mask(image, mask)))
    canvas = canvas.resize(size, Image.Resampling.BOX if zoom < 1 else Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(canvas)
    if mask is not None and not count:
        for value in np.setdiff1d(mask, (0, IGNORE)).tolist():
            x, y = _inner_pixel(mask == value)
            _write(pen, _name(value, class_names), (int(zoom * x), int(zoom * y)), colour(value - 1))
    for row in range(count) if scores is None else np.argsort(scores, kind="stable").tolist():
        corners = np.rint(zoom * np.asarray(boxes[row], np.float64))
        left, top, right, lower = np.clip(corners, 0, canvas.size * 2).astype(int).tolist()
        if left >= right or top >= lower:
            continue
        label = int(labels[row])
        pen.rectangle((left, top, right - 1, lower - 1), outline="white", width=LINE + 1)
        pen.rectangle((left, top, right - 1, lower - 1), outline=colour(label), width=LINE)
        score = "" if scores is None else f" {100 * float(scores[row]):.0f} %"
        _write(pen, _name(label, class_names) + score, (left, top - TEXT - 3), colour(label))
    return np.array(canvas)


def side_by_side(rows: Sequence[Pair], gap: int = GAP) -> np.ndarray:
    """Rows of two pictures, truth and prediction, on white: uint8 [H, W, 3].

    rows: pictures uint8 [h, w, 3] of any sizes; those of a column have their left edges in line.
    gap: white pixels around each picture.

    Raises:
        ValueError: there is no row.
    """
    if not rows:
        raise ValueError("side_by_side needs at least one row of pictures.")
    places = places_in_rows(rows, gap)
    _, _, width, height = np.max(places, axis=(0, 1)) + gap
    canvas = np.full((height, width, 3), 255, np.uint8)
    for pair, pair_places in zip(rows, places, strict=True):
        for picture, (left, top, right, lower) in zip(pair, pair_places, strict=True):
            canvas[top:lower, left:right] = picture
    return canvas


def places_in_rows(rows: Sequence[Pair], gap: int = GAP) -> list[tuple[Place, Place]]:
    """Left, top, right and lower edge of the two pictures of each row in `side_by_side`, in pixels."""
    second, top, places = 2 * gap + max((left.shape[1] for left, _ in rows), default=0), gap, []
    for pair in rows:
        (height, width), (height2, width2) = (picture.shape[:2] for picture in pair)
        places.append(((gap, top, gap + width, top + height), (second, top, second + width2, top + height2)))
        top += max(height, height2) + gap
    return places


def _with_mask(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image, half of it the colours of the mask wherever that is not background: uint8 [H, W, 3]."""
    table = COLOURS[np.arange(-1, IGNORE) % len(COLOURS)]  # [256, 3], by value
    table[IGNORE] = NO_TRUTH
    mixed = (image.astype(np.uint16) + table[mask]) // 2
    return np.where(mask[..., None] == 0, image, mixed.astype(np.uint8))


def _inner_pixel(region: np.ndarray) -> tuple[int, int]:
    """(x, y) of the pixel of a region, bool [H, W], that is nearest to its mean."""
    pixels = np.argwhere(region)
    y, x = pixels[np.square(pixels - pixels.mean(0)).sum(1).argmin()].tolist()
    return x, y


def _name(label: int, class_names: Sequence[str]) -> str:
    """The name of a class in ASCII, all that Pillow's font has; its number where there is none."""
    name = one_line(class_names[label]) if label < len(class_names) else ""
    return unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().strip() or str(label)


def _write(pen: ImageDraw.ImageDraw, text: str, place: tuple[int, int], fill: tuple[int, int, int]) -> None:
    """Writes text on a filled rectangle with its left upper corner at `place`, moved to be visible."""
    font = ImageFont.load_default(size=TEXT)
    width, height = int(pen.textlength(text, font=font)) + 5, TEXT + 3
    x, y = max(0, min(place[0], pen.im.size[0] - width)), max(0, min(place[1], pen.im.size[1] - height))
    pen.rectangle((x, y, x + width - 1, y + height - 1), fill=fill)
    ink = "black" if np.dot(fill, (0.299, 0.587, 0.114)) > 128 else "white"
    pen.text((x + 2, y + TEXT), text, fill=ink, font=font, anchor="ls")
