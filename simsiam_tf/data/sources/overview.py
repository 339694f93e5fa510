"""Formats, sizes and oddities of a set's images by their headers: for the dry run and the preview."""

from __future__ import annotations

import collections
from collections.abc import Iterable

import numpy as np

from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.runtime.display_text import counted

ORIENTATIONS = {  # EXIF's tag 274: what is done to the stored pixels, so that an image is upright
    2: "mirrored left to right", 3: "rotated by 180°", 4: "mirrored top to bottom",
    5: "mirrored left to right, then rotated by 90° counterclockwise", 6: "rotated by 90° clockwise",
    7: "mirrored left to right, then rotated by 90° clockwise", 8: "rotated by 90° counterclockwise",
}  # fmt: skip


def header_summary(source: EncodedSource) -> dict[str, str]:
    """Returns subject → counts as text, from the headers of a source's images; {} without headers."""
    rows = source.headers
    if rows is None:
        return {}
    turned = np.isin(rows["orientation"], (5, 6, 7, 8))
    width, height = (
        np.where(turned, rows[a], rows[b]) for a, b in (("height", "width"), ("width", "height"))
    )
    order = np.argsort(width.astype(np.int64) * height)
    all_sizes = np.unique(np.stack([width, height], axis=1), axis=0)
    sizes = [f"{width[i]}×{height[i]}" for i in (order[0], order[-1], order[len(order) // 2])]
    counts = {
        "formats": _counted(name.decode() for name in rows["format"].tolist()),
        "sizes": ", ".join(f"{w}×{h}" for w, h in all_sizes)
        if len(all_sizes) < 3
        else "{} to {}, median {}".format(*sizes),
        "channels": _counted(
            {1: "gray", 3: "colour"}.get(n, counted(n, "channel")) for n in rows["channels"].tolist()
        ),
        "more than 8 bits": _counted(f"{n} bits" for n in rows["bits"].tolist() if n > 8),
        "EXIF orientation": _counted(ORIENTATIONS[n] for n in rows["orientation"].tolist() if n > 1),
        "transparent": _counted(
            "laid on " + source.rule.background for t in rows["transparent"].tolist() if t
        ),
        "unreadable": "; ".join(f"{n} × {reason}" for reason, n in source.unreadable.items()),
    }
    return {subject: text for subject, text in counts.items() if text}


def _counted(texts: Iterable[str]) -> str:
    """Counts equal texts, the most frequent first, as in "3 × JPEG, 1 × PNG"."""
    return ", ".join(f"{n} × {text}" for text, n in collections.Counter(texts).most_common())


def odd_images(source: EncodedSource) -> np.ndarray:
    """Ids of images to look at first: transparent, rotated by EXIF, above 8 bits or otherwise not plain."""
    rows = source.headers
    if rows is None:
        return np.arange(0)
    kinds = [rows["transparent"], rows["orientation"] > 1, rows["bits"] > 8, ~rows["plain"]]
    of_kinds = [np.flatnonzero(kind) for kind in kinds]
    firsts = [ids[i : i + 1] for i in (0, 1) for ids in of_kinds]  # one of each kind, a second, then the rest
    return np.array(list(dict.fromkeys(np.concatenate([*firsts, *of_kinds]).tolist())), np.int64)


def image_notes(source: EncodedSource, i: int) -> list[str]:
    """What was done to the pixels of image i of a source, in words; [] where nothing was, or is known."""
    if source.headers is None:
        return []
    row = source.headers[i]
    return [
        *([ORIENTATIONS[int(row["orientation"])]] if row["orientation"] > 1 else []),
        *([f"transparent, laid on {source.rule.background}"] if row["transparent"] else []),
        *([f"{row['bits']} bits brought to 8"] if row["bits"] > 8 else []),
    ]
