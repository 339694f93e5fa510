"""The content of a page: sections of text, charts, rows of pictures, and tables."""

from __future__ import annotations

import base64
import dataclasses

import numpy as np
import tensorflow as tf

JPEG_FROM = 96  # pixels of a photo's width; narrower ones are PNG, which does not blur them


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture of the page.

    src: a data URI. alt: what the picture shows, in words and numbers, for screen readers.
    """

    src: str
    alt: str
    caption: str = ""


@dataclasses.dataclass
class Section:
    """A section of the page.

    charts: side by side where there is room. legend: (name, colour, mark) of each group in the charts.
    strips: rows of small pictures. pairs: pictures to compare, side by side where there is room. tables: rows
    of cells, of which the first is the head; the first cell of a row is its name.
    """

    title: str
    text: list[str] = dataclasses.field(default_factory=list)
    charts: list[Picture] = dataclasses.field(default_factory=list)
    legend: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    strips: list[list[Picture]] = dataclasses.field(default_factory=list)
    pairs: list[tuple[Picture, Picture]] = dataclasses.field(default_factory=list)
    tables: list[list[list[str]]] = dataclasses.field(default_factory=list)


def data_uri(data: bytes, media_type: str) -> str:
    """A data URI. media_type: such as "image/png"."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def photo(image: np.ndarray, alt: str, caption: str = "") -> Picture:
    """A uint8 image [H, W, C] as a picture."""
    if image.shape[1] >= JPEG_FROM:
        return Picture(data_uri(tf.io.encode_jpeg(image, quality=88).numpy(), "image/jpeg"), alt, caption)
    return Picture(data_uri(tf.io.encode_png(image).numpy(), "image/png"), alt, caption)
