"""The page's state as plain JSON: which pictures it holds, and what it knows of each."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from simsiam_tf.curation_page.content import Categories, CurationContent, Gallery, Numbers
from simsiam_tf.runtime.display_text import printable_text

MAX_POINTS = 20_000  # pictures on the map; of more, a sample
MAX_PICTURES = 40_000  # pictures of the page, neighbours included; those of galleries are always on it
MAX_NEIGHBOURS = 50  # of each picture, the nearest
DIGITS = 5  # significant digits of numbers, and of coordinates over the map's width


@dataclasses.dataclass(frozen=True)
class ShownRows:
    """The rows of a set that a page holds; the page numbers them by their places in `rows`.

    rows: int [n], ascending. mapped: bool [n], those on the map. known: bool [n], those whose neighbours the
    page holds, as far as they are on it.
    """

    rows: np.ndarray
    mapped: np.ndarray
    known: np.ndarray


def choose_rows(
    content: CurationContent,
    max_points: int = MAX_POINTS,
    max_pictures: int = MAX_PICTURES,
    seed: int = 0,
) -> ShownRows:
    """All rows up to `max_points`; of more, a random sample, those of galleries, and neighbours of both.

    Neighbours fill the page up to `max_pictures`: first those of galleries, then those of the sample, the
    nearest of each before any second. Of each at most `MAX_NEIGHBOURS` count.
    """
    count = len(content.names)
    chosen = content.gallery_rows()
    sample = np.arange(count)
    if count > max_points:
        sample = np.sort(np.random.default_rng(seed).permutation(count)[:max_points])
    known = np.union1d(sample, chosen)
    near = np.zeros((count, 0), np.int64) if content.neighbours is None else np.asarray(content.neighbours)
    near = near[:, :MAX_NEIGHBOURS]
    by_rank = np.concatenate([known, near[chosen].ravel(), near[sample].T.ravel()])
    by_rank = by_rank[by_rank >= 0]
    by_rank = by_rank[np.sort(np.unique(by_rank, return_index=True)[1])]
    rows = np.sort(by_rank[: max(max_pictures, len(known))])
    return ShownRows(rows, np.isin(rows, sample), np.isin(rows, known))


def page_state(content: CurationContent, shown: ShownRows) -> dict[str, Any]:
    """The state as JSON's types, but for the thumbnails; see `state.js`, which reads it."""
    rows = shown.rows
    place = {int(row): i for i, row in enumerate(rows)}
    names = [content.names[int(row)] for row in rows]
    printable = {i: text for i, name in enumerate(names) if (text := printable_text(name)) != name}
    points = np.asarray(content.points, np.float64)[rows]
    width = float(np.ptp(points, axis=0).max()) if len(points) else 0.0
    decimals = DIGITS - (math.floor(math.log10(width)) if width > 0 else 0)
    state = {
        "count": len(content.names),
        "names": names,
        "printable": printable,
        "lists": list_texts(names, [content.lists[int(row)] for row in rows]),
        "mapped": np.flatnonzero(shown.mapped).tolist(),
        "x": np.round(points[:, 0], decimals).tolist(),
        "y": np.round(points[:, 1], decimals).tolist(),
        "projection": content.projection,
        "columns": [_column(column, rows) for column in content.columns],
        "k": 0 if content.neighbours is None else np.shape(content.neighbours)[1],
        "shown": MAX_NEIGHBOURS,
        "neighbours": [],
        "cosines": [],
        "galleries": [_gallery(gallery, place) for gallery in content.galleries],
    }
    if content.neighbours is not None:
        near = np.asarray(content.neighbours)[:, :MAX_NEIGHBOURS]
        for row, known in zip(rows, shown.known, strict=True):
            held = [place.get(n, -1) for n in near[row].tolist()] if known else []
            fitting = [k for k, n in enumerate(held) if n >= 0]
            state["neighbours"].append([held[k] for k in fitting] if known else None)
            if content.cosines is not None:
                state["cosines"].append(np.round(content.cosines[row, fitting].astype(float), 4).tolist())
    return state


def list_texts(names: Sequence[str], lists: Sequence[str]) -> dict[str, Any]:
    """What a list takes for each picture: a prefix of all names, or texts of their own."""
    prefix = lists[0].removesuffix(names[0]) if names else ""
    if all(text == prefix + name for text, name in zip(lists, names, strict=True)):
        return {"prefix": prefix, "texts": None}
    return {"prefix": "", "texts": list(lists)}


def _column(column: Categories | Numbers, rows: np.ndarray) -> dict[str, Any]:
    if isinstance(column, Categories):
        names = [printable_text(str(name)) for name in column.names]
        return {"title": column.title, "codes": np.asarray(column.codes)[rows].tolist(), "names": names}
    values = np.asarray(column.values, np.float64)[rows]
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, [0.01, 0.99]) if len(finite) else (0.0, 0.0)
    return {
        "title": column.title,
        "about": column.about,
        "values": [_rounded(value) for value in values],
        # Colours spread over 98 % of the values, so that one extreme does not take them all.
        "range": [_rounded(low), _rounded(high)],
        "extremes": [_rounded(finite.min()), _rounded(finite.max())] if len(finite) else [0.0, 0.0],
    }


def _rounded(value: float) -> float | None:
    """A number with fewer digits, but for whole numbers; None for NaN and infinities."""
    if not np.isfinite(value):
        return None
    return float(value) if value == round(value) else float(f"{value:.{DIGITS}g}")


def _gallery(gallery: Gallery, place: dict[int, int]) -> dict[str, Any]:
    groups = [
        {
            "rows": [place[int(row)] for row in group.rows],
            "caption": printable_text(group.caption),
            "marks": [place[int(row)] for row in group.marks],
            "notes": [printable_text(note) for note in group.notes],
        }
        for group in gallery.groups
    ]
    return {"title": gallery.title, "mark": gallery.mark, "groups": groups}


def packed_text(text: str) -> str:
    """Text as base64 of gzip, which unpack.js reads: plotly.js takes 2 MB, not 4.8."""
    return base64.b64encode(gzip.compress(text.encode("utf-8"), 9, mtime=0)).decode()


def script_json(state: dict[str, Any]) -> str:
    """JSON in ASCII.

    Undecodable bytes of names become the lone surrogates that Python keeps them as.
    """
    return json.dumps(state, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
