"""The content of a page: sections of text, charts, rows of pictures, and tables."""

from __future__ import annotations

import base64
import dataclasses

import numpy as np
import tensorflow as tf

JPEG_FROM = 96  # pixels of a photo's width; narrower ones are PNG, which does not blur them


@dataclasses.dataclass(frozen=True)
class Picture:
    """src: a data URI. alt: what the picture shows, in words and numbers, for screen readers."""

    src: str
    alt: str
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text under a head; the first column names the row."""

    head: list[str]
    rows: list[list[str]]


@dataclasses.dataclass(frozen=True)
class Mark:
    """A group in the legend of a chart: its name, colour and outline (an SVG path within ±0.6)."""

    name: str
    colour: str
    outline: str


@dataclasses.dataclass
class Section:
    """A section of the page.

    charts: side by side where there is room. legend: for all charts. strips: rows of small pictures.
    """

    title: str
    text: list[str] = dataclasses.field(default_factory=list)
    charts: list[Picture] = dataclasses.field(default_factory=list)
    legend: list[Mark] = dataclasses.field(default_factory=list)
    strips: list[list[Picture]] = dataclasses.field(default_factory=list)
    tables: list[Table] = dataclasses.field(default_factory=list)


def data_uri(data: bytes, media_type: str) -> str:
    """A data URI. media_type: such as "image/png"."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def photo(image: np.ndarray, alt: str, caption: str = "", min_width: int = 0) -> Picture:
    """A uint8 image [H, W, C] as a JPEG picture, or as PNG where it is narrow.

    min_width: pixels of narrower images are repeated to at least this width.
    """
    if image.shape[1] >= JPEG_FROM:
        return Picture(data_uri(tf.io.encode_jpeg(image, quality=88).numpy(), "image/jpeg"), alt, caption)
    zoom = max(1, -(-min_width // image.shape[1]))
    image = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    return Picture(data_uri(tf.io.encode_png(image).numpy(), "image/png"), alt, caption)
