"""Charts by matplotlib, each of one quantity and with a description in words."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle

from simsiam_tf.html_report.sections import Mark, Picture, data_uri

INK, GRID, LINE, SECOND = "#1f2933", "#d9dee3", "#1c64a4", "#c2571a"
STYLE: Any = {
    "font.size": 11, "axes.edgecolor": GRID, "axes.labelcolor": INK, "text.color": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.7,
    "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "svg.hashsalt": "simsiam_tf", "legend.frameon": False,
}  # fmt: skip
TITLE = {"loc": "left", "fontsize": 12, "fontweight": "bold"}
SIZE = (5.4, 3.2)  # inches
PALETTE = (
    "#1c64a4", "#c2571a", "#2f8f4e", "#b3312c", "#7452a8",
    "#855c3f", "#d069a8", "#5d6770", "#a79a14", "#17a2b3",
)  # fmt: skip
MARKS = "osD^vP*X<>"  # classes differ in mark and colour, for readers who cannot tell colours apart
LOOKS = len(PALETTE) * len(MARKS)  # groups that can be told apart


@rc_context(STYLE)
def lines(
    x: Sequence[float],
    series: Mapping[str, Sequence[float]],
    title: str,
    levels: Mapping[str, float] | None = None,
    marked: bool = False,
    x_name: str = "step",
) -> Picture:
    """Curves over steps. levels: horizontal lines by name. marked: every point has a mark.

    A point without a finite neighbour always has a mark, since no line leads to it.
    """
    levels = levels or {}
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    for (name, y), colour, style in zip(series.items(), (LINE, SECOND), ("-", "--"), strict=False):
        marks = np.flatnonzero(marked | _isolated(y)).tolist()
        axes.plot(x, y, style, color=colour, label=name, marker="o", markersize=4, markevery=marks)
    for (name, level), style in zip(levels.items(), (":", "-.", "--"), strict=False):
        axes.axhline(level, color=INK, linestyle=style, linewidth=1, label=name)
    axes.set_title(title, **TITLE)
    axes.set_xlabel(x_name)
    if len(series) + len(levels) > 1:
        axes.legend(fontsize=9)
    words = [f"{title}, {x_name} {x[0]:g} to {x[-1]:g}"] if len(x) else [title]
    words += [f"{name} from {y[0]:.3g} to {y[-1]:.3g}" for name, y in series.items() if len(y)]
    words += [f"{name} at {level:.3g}" for name, level in levels.items()]
    return Picture(_svg(figure), "; ".join(words) + ".")


def _isolated(y: Sequence[float]) -> np.ndarray:
    """Whether each value is finite between two that are not."""
    finite = np.isfinite(np.asarray(y, np.float64))
    padded = np.pad(finite, 1)
    return finite & ~padded[:-2] & ~padded[2:]


@rc_context(STYLE)
def scatter(points: np.ndarray, groups: np.ndarray, title: str, alt: str) -> Picture:
    """Points [N, 2] by group, int [N]; `legend` names the groups."""
    figure = Figure(figsize=(5.4, 5.4), layout="constrained")
    axes = figure.subplots()
    for g in np.unique(groups):
        colour, mark = _look(g)
        axes.scatter(*points[groups == g].T, s=9, alpha=0.65, linewidths=0, color=colour, marker=mark)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.set_title(title, **TITLE)
    return Picture(_png(figure), alt)


def legend(groups: np.ndarray, names: Sequence[str]) -> list[Mark]:
    """The names of the groups that `scatter` shows.

    They are text of the page, not of the chart: browsers have the letters of every script, and matplotlib
    interprets $ and a leading _.
    """
    return [
        Mark(names[int(g)], colour, _outline(mark)) for g in np.unique(groups) for colour, mark in [_look(g)]
    ]


def _look(group: int) -> tuple[str, str]:
    """Colour and mark of a group."""
    return PALETTE[group % len(PALETTE)], MARKS[group // len(PALETTE) % len(MARKS)]


def _outline(mark: str) -> str:
    style = MarkerStyle(mark)
    polygons = style.get_path().transformed(style.get_transform()).to_polygons()
    corners = [np.asarray(polygon).tolist() for polygon in polygons]
    return " ".join("M" + "L".join(f"{x:.3f},{-y:.3f}" for x, y in points) + "Z" for points in corners)


@rc_context(STYLE)
def spectrum_chart(shares: np.ndarray, rank: float, alt: str) -> Picture:
    """Shares of the variance by direction, on a logarithmic axis, and their running sum."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    number = np.arange(1, len(shares) + 1)
    axes.plot(number, np.maximum(shares, 1e-9), color=LINE, label="share of the variance")
    axes.axvline(rank, color=INK, linestyle=":", linewidth=1, label=f"effective rank {rank:.1f}")
    axes.set(xscale="log", yscale="log", xlabel="direction, the largest first", ylim=(1e-7, 1.5))
    right = axes.twinx()
    right.plot(number, np.cumsum(shares), "--", color=SECOND, label="running sum (right)")
    right.set_ylim(0, 1.02)
    right.grid(False)
    handles = [*axes.get_lines(), *right.get_lines()]
    axes.legend(handles, [str(h.get_label()) for h in handles], fontsize=9, loc="lower left")
    axes.set_title("Spectrum of the features", **TITLE)
    return Picture(_svg(figure), alt)


def heat_map(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A map [H, W] in [0, 1] laid over an image uint8 [H, W, C]: uint8 [H, W, 3]."""
    gray = image.astype(np.float32).mean(axis=2, keepdims=True) / 255
    strength = 0.75 * heat[..., None]
    colours = colormaps["inferno"](heat)[..., :3]
    return np.rint(255 * ((1 - strength) * gray + strength * colours)).astype(np.uint8)


def _svg(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return data_uri(buffer.getvalue(), "image/svg+xml")


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return data_uri(buffer.getvalue(), "image/png")
