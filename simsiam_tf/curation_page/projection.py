"""Points on a plane for features of any number of images: by a sample, beside which the others are placed."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable

import numpy as np

from simsiam_tf.features.knn import unit_rows
from simsiam_tf.html_report.projections import REDUCED, fit_pca, spans_plane, tsne_plane, umap_plane
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.display_text import counted
from simsiam_tf.runtime.errors import UserError

METHODS = {"umap": "UMAP", "tsne": "t-SNE", "pca": "PCA"}
SAMPLE = 4_000  # rows that UMAP or t-SNE are fitted to: a minute's work; UMAP compiles more above 4,096
PLACED_BY = 5  # nearest sampled rows by whose points another row is placed
MAX_PLACED = 2_000_000  # rows up to which "auto" places them; PCA for more
MIN_ROWS = 8  # rows from which "auto" is not PCA
BLOCK = 2**22  # numbers that are read at a time


@dataclasses.dataclass(frozen=True)
class Projection:
    """Points float32 [N, 2] of a set. method: a key of `METHODS`. sampled: rows that it was fitted to."""

    points: np.ndarray
    method: str
    sampled: int

    def __str__(self) -> str:
        count, title = len(self.points), METHODS[self.method]
        if self.sampled == count or self.method == "pca":
            return title
        return f"{title} of {self.sampled:,} pictures, the others beside their nearest of these"


def project(features: np.ndarray, method: str = "auto", sample: int = SAMPLE, seed: int = 0) -> Projection:
    """Points of features [N, F] on a plane, near each other where the cosine is high.

    A random sample is reduced to 50 principal components, and these to a plane. Any other row goes to the
    mean of the points of its 5 nearest sampled rows, weighted by 1 / distance: a copy lies on its original.
    With "pca", and where the rows span no plane, all go along the first two principal components of the
    sample.

    Args:
        features: finite numbers, may be memory-mapped: they are read in blocks.
        method: "umap", "tsne", "pca", or "auto": UMAP where umap-learn is installed, else t-SNE; PCA for
            fewer than 8 or more than 2 million rows.

    Raises:
        UserError: a number that is not finite, an unknown method, "umap" without umap-learn.
    """
    if method not in ("auto", *METHODS):
        raise UserError(f"projection={method}: is unknown. Choose from auto, {', '.join(METHODS)}.")
    has_umap = importlib.util.find_spec("umap") is not None
    if method == "umap" and not has_umap:
        raise UserError("projection=umap: needs umap-learn: pip install 'simsiam-tf[umap]'. Or pass tsne.")
    count = len(features)
    if count < MIN_ROWS:
        method = "pca"
    elif method == "auto":
        method = "pca" if count > MAX_PLACED else "umap" if has_umap else "tsne"
    points = np.zeros((count, 2), np.float32)
    if count < 2:
        return Projection(points, method, count)
    chosen = np.sort(np.random.default_rng(seed).permutation(count)[:sample])
    z = _unit_rows(features, chosen)
    pca = fit_pca(z, 2 if method == "pca" else REDUCED, seed)
    reduced = pca.transform(z)
    if not spans_plane(reduced):
        method = "pca"
    plane, place = reduced[:, :2], lambda z: z[:, :2]
    if method != "pca":
        _say_how_long(method, len(chosen), count)
        plane = (umap_plane if method == "umap" else tsne_plane)(reduced, seed)
        place = _nearest_points(reduced, plane)
    points[chosen, : plane.shape[1]] = plane
    others = np.setdiff1d(np.arange(count), chosen)
    step = max(1, BLOCK // features.shape[1])
    for start in range(0, len(others), step):
        rows = others[start : start + step]
        points[rows, : plane.shape[1]] = place(pca.transform(_unit_rows(features, rows)))
    return Projection(points, method, len(chosen))


def _say_how_long(method: str, sampled: int, count: int) -> None:
    of_all = f" of {count:,}" if sampled < count else ""
    minutes = counted(max(1, round(sampled / SAMPLE)), "minute")
    progress.say(
        f"map: {METHODS[method]} of {sampled:,}{of_all} pictures, which may take up to {minutes} on two "
        "cores; --map_sample=N changes their number, --map=pca takes seconds"
    )


def _nearest_points(rows: np.ndarray, points: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function from rows to the mean of the points of the rows that are nearest to each."""
    from sklearn.neighbors import KNeighborsRegressor

    nearest = KNeighborsRegressor(min(PLACED_BY, len(rows)), weights="distance", algorithm="brute")
    return nearest.fit(rows, points).predict


def _unit_rows(features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    z = unit_rows(features[rows])
    bad = ~np.isfinite(z).all(axis=1)
    if bad.any():
        raise UserError(f"`features`: row {rows[bad.argmax()]} has a NaN or an infinity. Leave it out.")
    return z
