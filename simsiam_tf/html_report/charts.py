"""Charts by matplotlib, each with a description in words for screen readers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure

from simsiam_tf.html_report.sections import Picture, data_uri

INK, GRID, COLOURS = "#1f2933", "#d9dee3", ("#1c64a4", "#c2571a", "#2f8f4e")
STYLE: Any = {
    "font.size": 11, "axes.edgecolor": GRID, "axes.labelcolor": INK, "text.color": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.7,
    "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlelocation": "left", "axes.titlesize": 12, "axes.titleweight": "bold",
    "svg.hashsalt": "simsiam_tf", "legend.frameon": False, "legend.fontsize": 9,
    "figure.constrained_layout.use": True, "figure.figsize": (5.4, 3.2),
}  # fmt: skip
GROUP_COLOURS = (
    "#1c64a4", "#c2571a", "#2f8f4e", "#b3312c", "#7452a8",
    "#855c3f", "#d069a8", "#5d6770", "#a79a14", "#17a2b3",
)  # fmt: skip
# (matplotlib's mark, the page's). Groups 0 to 9 differ in both; every ten more begin with the next mark.
GROUP_MARKS = (
    ("o", "●"), ("s", "■"), ("D", "◆"), ("^", "▲"), ("v", "▼"),
    ("P", "✚"), ("X", "✖"), ("*", "★"), ("<", "◄"), (">", "►"),
)  # fmt: skip
MAX_GROUPS = len(GROUP_COLOURS) * len(GROUP_MARKS)  # groups with a colour and mark of their own


@rc_context(STYLE)
def line_chart(
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    title: str,
    levels: Mapping[str, float],
    marked: bool = False,
) -> Picture:
    """At most three curves over the steps x.

    levels: at most three horizontal lines, by name. marked: whether every point has a mark.

    A point without a finite neighbour always has a mark, since no line leads to it.
    """
    figure = Figure()
    axes = figure.subplots()
    for (name, y), colour, style in zip(curves.items(), COLOURS, ("-", "--", "-."), strict=False):
        marks = np.flatnonzero(marked | _isolated(y)).tolist()
        axes.plot(x, y, style, color=colour, label=name, marker="o", markersize=4, markevery=marks)
    for (name, level), style in zip(levels.items(), (":", "-.", "--"), strict=False):
        axes.axhline(level, color=INK, linestyle=style, linewidth=1, label=name)
    axes.set(title=title, xlabel="step")
    if len(curves) + len(levels) > 1:
        axes.legend()
    words = [f"{title}, step {x[0]:g} to {x[-1]:g}"]
    words += [f"{name} from {y[0]:.3g} to {y[-1]:.3g}" for name, y in curves.items()]
    words += [f"{name} at {level:.3g}" for name, level in levels.items()]
    return _picture(figure, "svg", "; ".join(words) + ".")


def _isolated(y: Sequence[float]) -> np.ndarray:
    """Whether each value is finite between two that are not."""
    padded = np.pad(np.isfinite(np.asarray(y, np.float64)), 1)
    return padded[1:-1] & ~padded[:-2] & ~padded[2:]


@rc_context(STYLE)
def scatter_chart(points: np.ndarray, groups: np.ndarray, title: str, alt: str) -> Picture:
    """Points [N, 2], coloured and marked by group, int [N]; `legend` names the groups."""
    figure = Figure(figsize=(5.4, 5.4))
    axes = figure.subplots()
    for group in np.unique(groups):
        colour, (mark, _) = _colour_and_mark(group)
        axes.scatter(*points[groups == group].T, s=9, alpha=0.65, linewidths=0, color=colour, marker=mark)
    axes.set(title=title, xticks=[], yticks=[])
    return _picture(figure, "png", alt)


def legend(groups: np.ndarray, names: Sequence[str]) -> list[tuple[str, str, str]]:
    """(name, colour, mark) of the groups that `scatter_chart` shows. names: of all groups.

    The legend is text of the page, not of the chart: browsers have the letters of every script, and
    matplotlib interprets $ and a leading _.
    """
    looks = {group: _colour_and_mark(group) for group in np.unique(groups)}
    return [(names[int(group)], colour, mark) for group, (colour, (_, mark)) in looks.items()]


def _colour_and_mark(group: int) -> tuple[str, tuple[str, str]]:
    row, column = divmod(group, len(GROUP_COLOURS))
    return GROUP_COLOURS[column], GROUP_MARKS[(row + column) % len(GROUP_MARKS)]


@rc_context(STYLE)
def spectrum_chart(shares: np.ndarray, rank: float, alt: str) -> Picture:
    """Shares of the variance by direction, the largest first, and the effective rank."""
    figure = Figure()
    axes = figure.subplots()
    axes.loglog(np.arange(1, len(shares) + 1), np.maximum(shares, 1e-9), color=COLOURS[0])
    axes.axvline(rank, color=INK, linestyle=":", linewidth=1, label=f"effective rank {rank:.1f}")
    axes.set(title="Share of the variance", xlabel="direction, the largest first", ylim=(1e-7, 1.5))
    axes.legend(loc="lower left")
    return _picture(figure, "svg", alt)


def heat_map(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A map [H, W] in [0, 1] laid over an image uint8 [H, W, C]: uint8 [H, W, 3]."""
    gray = image.astype(np.float32).mean(axis=2, keepdims=True) / 255
    strength = 0.75 * heat[..., None]
    colours = colormaps["inferno"](heat)[..., :3]
    return np.rint(255 * ((1 - strength) * gray + strength * colours)).astype(np.uint8)


def _picture(figure: Figure, format: str, alt: str) -> Picture:
    """A figure as a picture, without dates or versions, so that the same run gives the same page."""
    buffer = io.BytesIO()
    media_type, metadata = ("image/svg+xml", "Date") if format == "svg" else ("image/png", "Software")
    figure.savefig(buffer, format=format, dpi=160, metadata={metadata: None})
    return Picture(data_uri(buffer.getvalue(), media_type), alt)
