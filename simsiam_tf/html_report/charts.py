"""Charts by matplotlib: one quantity each, with its figures in words beside it."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle

from simsiam_tf.html_report.sections import Mark, Picture, uri

INK, GRID, LINE, SECOND = "#1f2933", "#d9dee3", "#1c64a4", "#c2571a"
STYLE = {
    "font.size": 11, "axes.edgecolor": GRID, "axes.labelcolor": INK, "text.color": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.7,
    "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "svg.hashsalt": "simsiam_tf", "legend.frameon": False,
}  # fmt: skip
SIZE = (5.4, 3.2)  # inches
PALETTE = (
    "#1c64a4", "#c2571a", "#2f8f4e", "#b3312c", "#7452a8",
    "#855c3f", "#d069a8", "#5d6770", "#a79a14", "#17a2b3",
)  # fmt: skip
MARKS = "osD^vP*X<>"  # a mark a class beside its colour, for who cannot tell colours apart
LOOKS = len(PALETTE) * len(MARKS)  # groups that can be told apart


def lines(
    x: Sequence[float],
    series: dict[str, Sequence[float]],
    title: str,
    levels: dict[str, float] | None = None,
    marked: bool = False,
    log: bool = False,
    x_name: str = "step",
) -> Picture:
    """Curves over steps. levels: horizontal lines by name. marked: with a mark a point.

    Points without a neighbour, such as the only one, have a mark in any case: no line leads to them.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        for (name, y), colour, style in zip(series.items(), (LINE, SECOND), ("-", "--"), strict=False):
            marks = np.flatnonzero(marked | _alone(y)).tolist()
            axes.plot(x, y, style, color=colour, label=name, marker="o", markersize=4, markevery=marks)
        for (name, level), style in zip((levels or {}).items(), (":", "-.", "--"), strict=False):
            axes.axhline(level, color=INK, linestyle=style, linewidth=1, label=name)
        if log:
            axes.set_yscale("log")
        axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
        axes.set_xlabel(x_name)
        if len(series) + len(levels or {}) > 1:
            axes.legend(fontsize=9)
        return Picture(_svg(figure), _in_words(x, series, title, levels or {}, x_name))


def _alone(y: Sequence[float]) -> np.ndarray:
    """Which values are numbers between two that are none."""
    numbers = np.isfinite(np.asarray(y, np.float64))
    beside = np.pad(numbers, 1)
    return numbers & ~beside[:-2] & ~beside[2:]


def scatter(points: np.ndarray, groups: np.ndarray, title: str, alt: str) -> Picture:
    """Points [N, 2] by group, int [N]; `legend` names the groups."""
    with rc_context(STYLE):
        figure = Figure(figsize=(5.4, 5.4), layout="constrained")
        axes = figure.subplots()
        for g in np.unique(groups):
            colour, mark = _look(g)
            axes.scatter(*points[groups == g].T, s=9, alpha=0.65, linewidths=0, color=colour, marker=mark)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(False)
        axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
        return Picture(_png(figure), alt)


def legend(groups: np.ndarray, names: Sequence[str]) -> list[Mark]:
    """The groups that `scatter` shows, with their names.

    Text of the page and not of the charts: a browser has the letters of every script, and matplotlib takes
    $ and a leading _ in a name for orders.
    """
    return [Mark(names[g], colour, _outline(mark)) for g in np.unique(groups) for colour, mark in [_look(g)]]


def _look(group: int) -> tuple[str, str]:
    """Colour and mark of a group."""
    return PALETTE[group % len(PALETTE)], MARKS[group // len(PALETTE) % len(MARKS)]


def _outline(mark: str) -> str:
    style = MarkerStyle(mark)
    polygons = style.get_path().transformed(style.get_transform()).to_polygons()
    return " ".join("M" + "L".join(f"{x:.3f},{-y:.3f}" for x, y in corners) + "Z" for corners in polygons)


def bars_of_spectrum(shares: np.ndarray, rank: float, alt: str) -> Picture:
    """Shares of the variance by direction, on a logarithmic axis, and their running sum."""
    with rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        number = np.arange(1, len(shares) + 1)
        axes.plot(number, np.maximum(shares, 1e-9), color=LINE, label="share of the variance")
        axes.axvline(rank, color=INK, linestyle=":", linewidth=1, label=f"effective rank {rank:.1f}")
        axes.set(xscale="log", yscale="log", xlabel="direction, the largest first", ylim=(1e-7, 1.5))
        whole = axes.twinx()
        whole.plot(number, np.cumsum(shares), "--", color=SECOND, label="running sum (right)")
        whole.set_ylim(0, 1.02)
        whole.grid(False)
        handles = [*axes.get_lines(), *whole.get_lines()]
        axes.legend(handles, [h.get_label() for h in handles], fontsize=9, loc="lower left")
        axes.set_title("Spectrum of the features", loc="left", fontsize=12, fontweight="bold")
        return Picture(_svg(figure), alt)


def heat(image: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """A map [H, W] in [0, 1] laid over an image uint8 [H, W, C]: uint8 [H, W, 3]."""
    from matplotlib import colormaps

    gray = image.astype(np.float32).mean(axis=2, keepdims=True) / 255
    colours = colormaps["inferno"](shown)[..., :3]
    strength = 0.75 * shown[..., None]
    return np.uint8(np.rint(255 * ((1 - strength) * gray + strength * colours)))


def _in_words(x, series: dict, title: str, levels: dict, x_name: str) -> str:  # noqa: ANN001
    parts = [f"{title}, {x_name} {x[0]:g} to {x[-1]:g}"] if len(x) else [title]
    parts += [f"{name} from {y[0]:.3g} to {y[-1]:.3g}" for name, y in series.items() if len(y)]
    return "; ".join([*parts, *(f"{name} at {level:.3g}" for name, level in levels.items())]) + "."


def _svg(figure: Figure) -> str:
    held = io.BytesIO()
    figure.savefig(held, format="svg", metadata={"Date": None})
    return uri(held.getvalue(), "image/svg+xml")


def _png(figure: Figure) -> str:
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=160, metadata={"Software": None})
    return uri(held.getvalue(), "image/png")
