"""What a page is made of: sections of text, pictures, strips of pictures, and tables."""

from __future__ import annotations

import dataclasses

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
