"""Pictures of images and their views, to look at before a training."""

from __future__ import annotations

import collections
import functools
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont

from simsiam_tf.data import Source, Views, pipeline, subset
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.data.sources.overview import image_notes, odd_images
from simsiam_tf.runtime import atomic_files
from simsiam_tf.runtime.display_text import one_line

GAP, TEXT, LINE = 4, 11, 16  # pixels of the white around each picture, of a letter, of a line of captions


def grid(source: Source, views: Views, seed: int, rows: int = 8) -> tuple[np.ndarray, list[str]]:
    """(a picture whose rows show an image's evaluation view and its random views, the captions of the rows).

    The picture is uint8 [H, W, 3], with a heading above each column. A caption is the image's name, and what
    was done to its pixels when it was read (`image_notes`); it stands above the row, shortened to its width.

    The images are `shown_images`, if they are encoded. Of more than three channels the first three are
    shown, of two the first.

    rows: number of images, or all where the source has fewer.
    """
    rows = min(rows, source.size)
    if isinstance(source, EncodedSource):
        source = subset(source, shown_images(source, rows), source.name)
    (batch,) = pipeline.StepBatches(source, views, rows, seed).dataset(0, 1)
    (whole,) = pipeline.evaluation_views(source, views, batch["index"], rows)
    order = np.argsort(batch["index"])  # a batch is shuffled
    columns = [views.denormalise(x).numpy()[order] for x in (whole, *batch["views"])]
    zoom = max(1, 112 // views.augmentation.size)
    columns = [_in_rgb(x.repeat(zoom, axis=1).repeat(zoom, axis=2)) for x in columns]
    side = max(x.shape[1] for x in columns)  # small views stand above white
    captions = [_caption(source, int(i)) for i in np.sort(batch["index"])]
    return _captioned(columns, side, headings(views), captions), captions


def shown_images(source: EncodedSource, rows: int) -> list[int]:
    """Ids of images for so many rows: odd ones first (`odd_images`), in half of the rows, then ordinary ones.

    Where these are fewer, more odd ones. rows: at most the number of images.
    """
    odd = odd_images(source)
    plain = np.setdiff1d(np.arange(source.size), odd)
    odd = odd[: max(rows // 2, rows - len(plain))]
    spread = np.linspace(0, len(plain) - 1, rows - len(odd)).astype(np.int64)
    return [*odd.tolist(), *plain[spread].tolist()]


def headings(views: Views) -> list[str]:
    """The names of a preview's columns: the image as it is evaluated, then each view."""
    sizes = collections.Counter(a.size for a in views.each)
    several = len(sizes) > 1
    sizes_of = [f", {a.size} px" if several else "" for a in views.each]
    return ["the image", *(f"view {number}{size}" for number, size in enumerate(sizes_of, 1))]


def _in_rgb(x: np.ndarray) -> np.ndarray:
    """Pictures [n, H, W, C] with three channels: the first three, or the first thrice."""
    return x[..., :3] if x.shape[-1] >= 3 else x[..., :1].repeat(3, axis=-1)


def _caption(source: Source, i: int) -> str:
    names = getattr(source, "names", None)
    notes = image_notes(source, i) if isinstance(source, EncodedSource) else []
    return one_line(": ".join(filter(None, [names[i] if names else f"image {i}", ", ".join(notes)])))


def _captioned(
    columns: Sequence[np.ndarray], side: int, heads: Sequence[str], captions: Sequence[str]
) -> np.ndarray:
    """One picture of columns [n, S, S, 3], S ≤ `side`: uint8 [LINE + n (LINE + side + 2 GAP), W, 3]."""
    widths = [x.shape[2] + 2 * GAP for x in columns]
    step = LINE + side + 2 * GAP
    canvas = Image.new("RGB", (sum(widths), LINE + len(captions) * step), "white")
    pen, left = ImageDraw.Draw(canvas), 0
    for x, head, width in zip(columns, heads, widths, strict=True):
        _write(pen, head, left, 0, width)
        for row, picture in enumerate(x):
            canvas.paste(Image.fromarray(picture), (left + GAP, LINE + row * step + LINE + GAP))
        left += width
    for row, caption in enumerate(captions):
        _write(pen, caption, 0, LINE + row * step, left)
    return np.asarray(canvas)


def _write(pen: ImageDraw.ImageDraw, text: str, left: int, top: int, width: int) -> None:
    """Writes text into a line of a width, shortened in its middle."""
    font, has_accents = _font()
    if not has_accents:  # "?" stands for letters that are not basic ones with accents
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
        text = text.encode("ascii", "replace").decode("ascii")
    shown, kept = text, len(text)
    while kept > 1 and pen.textlength(shown, font=font) > width - 2 * GAP:
        kept -= 1
        shown = f"{text[: kept // 2]}...{text[len(text) - (kept - kept // 2) :]}"
    pen.text((left + GAP, top + LINE - GAP), shown, fill="black", font=font, anchor="ls")


@functools.cache
def _font() -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, bool]:
    """(DejaVu Sans where the system has it, else Pillow's font; whether it has more than basic letters)."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", TEXT), True
    except OSError:
        return ImageFont.load_default(size=TEXT), False


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes a picture as PNG. Raises OSError where the file cannot be written."""
    atomic_files.atomic_write_bytes(path, tf.io.encode_png(picture).numpy())
