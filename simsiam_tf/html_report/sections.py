"""What a page is made of: sections of text, pictures, strips of pictures, and tables."""

from __future__ import annotations

import base64
import dataclasses

import numpy as np
import tensorflow as tf

JPEG_FROM = 96  # pixels of a photo's width; JPEG blurs what is smaller


@dataclasses.dataclass(frozen=True)
class Picture:
    """src: a data URI. alt: what it shows, with its figures, for who cannot see it."""

    src: str
    alt: str
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text under a head; the first column names the row."""

    head: list[str]
    rows: list[list[str]]
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Mark:
    """A group's colour and outline (the data of an SVG path within ±0.6) in a chart, and its name."""

    name: str
    colour: str
    outline: str


@dataclasses.dataclass
class Section:
    """A part of the page.

    charts: side by side where there is room. legend: of all of them. strips: rows of small pictures.
    """

    title: str
    text: list[str] = dataclasses.field(default_factory=list)
    charts: list[Picture] = dataclasses.field(default_factory=list)
    legend: list[Mark] = dataclasses.field(default_factory=list)
    strips: list[list[Picture]] = dataclasses.field(default_factory=list)
    tables: list[Table] = dataclasses.field(default_factory=list)


def uri(data: bytes, kind: str) -> str:
    """A data URI. kind: such as "image/png"."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def photo(image: np.ndarray, alt: str, caption: str = "", least: int = 0) -> Picture:
    """uint8 [H, W, C] → a picture: as JPEG where it is wide enough for one, else as PNG.

    least: pixels that a narrower image's are repeated to, at least.
    """
    if image.shape[1] >= JPEG_FROM:
        return Picture(uri(tf.io.encode_jpeg(image, quality=88).numpy(), "image/jpeg"), alt, caption)
    zoom = max(1, -(-least // image.shape[1]))
    image = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    return Picture(uri(tf.io.encode_png(image).numpy(), "image/png"), alt, caption)
