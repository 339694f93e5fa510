"""Finishes features in an exported backbone: read by quarters, centred, and whitened by a linear map.

A few directions hold most of the variance of learned features, and decide alone which images are near each
other. Whitening gives all directions a variance of about 1. Its shrinkage keeps the variance small in
directions that hold little more than noise.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from simsiam_tf.data import Source, Views
from simsiam_tf.data.augment.eval_transform import SMALL
from simsiam_tf.features import extraction
from simsiam_tf.features.columns import row_blocks
from simsiam_tf.nets import keras_networks, whitening

SHRINKAGE = 0.1  # least shrinkage for features, in mean variances (docs/evaluate.md)
PIXEL_SHRINKAGE = 3.0  # least shrinkage for raw pixels
MAX_SHRINKAGE = 3.0  # largest shrinkage that a small number of images leads to
FITTED_IMAGES = 20_000  # most images by whose features a whitening is fitted
WHITENED_PIXEL_VALUES = 32 * 32 * 3  # pixels are averaged down to so many before they are whitened


@dataclasses.dataclass(frozen=True)
class Whitening:
    """A linear map of features: x → (x − mean) · matrix.

    mean: float64 [F]. matrix: float64 [F, F], symmetric. shrinkage: as for `fit_whitening`. rows: number of
    rows that it was fitted to.
    """

    mean: np.ndarray
    matrix: np.ndarray
    shrinkage: float
    rows: int

    def __call__(self, features: np.ndarray, in_place: bool = False) -> np.ndarray:
        """Whitened features, float32 [N, F]. in_place: write them over `features`, which are float32."""
        out = features if in_place else np.empty(features.shape, np.float32)
        for rows in row_blocks(*features.shape):
            out[rows] = (features[rows].astype(np.float64) - self.mean) @ self.matrix
        return out


def chosen_shrinkage(features: np.ndarray, least: float = SHRINKAGE) -> float:
    """The shrinkage for features [N, F]: F/N, at most MAX_SHRINKAGE, but never below `least`.

    With fewer images than features, a whitening with little shrinkage would make all images about equally
    far from each other.
    """
    rows, width = features.shape
    return max(least, min(width / rows, MAX_SHRINKAGE))


def fit_whitening(features: np.ndarray, shrinkage: float | None = None) -> Whitening | None:
    """Fits a whitening to features [N, F]; None where they do not vary, as after a collapse.

    Along a principal component of variance v, features are divided by √(v + shrinkage · mean variance). Then
    they are rotated back (ZCA), which changes no distance and no cosine. So each output still belongs to the
    feature in its place, and the matrix is symmetric and does not depend on the signs and the order of the
    components, which are arbitrary where variances are equal.

    shrinkage: at least 0; `chosen_shrinkage` when None.
    """
    rows, width = features.shape
    shrinkage = chosen_shrinkage(features) if shrinkage is None else shrinkage
    mean = sum(features[part].sum(axis=0, dtype=np.float64) for part in row_blocks(rows, width)) / rows
    covariance = np.zeros((width, width))
    for part in row_blocks(rows, width):
        centred = features[part].astype(np.float64) - mean
        covariance += centred.T @ centred
    variances, axes = np.linalg.eigh(covariance / rows)
    variances = np.maximum(variances, 0)  # rounding makes some of them negative
    rounding = np.finfo(np.float32).eps * np.abs(mean).max(initial=0)
    if not variances.mean() > rounding**2:
        return None

    scale = 1 / np.sqrt(variances + shrinkage * variances.mean())
    return Whitening(mean, (axes * scale) @ axes.T, shrinkage, rows)


def reading_views(views: Views, size: int) -> Views:
    """The same views with another size in pixels, to read images at."""
    return Views(dataclasses.replace(views.augmentation, size=size))


def default_read_size(size: int) -> int:
    """Side in pixels of the images that a network reads which was trained on views of `size` pixels."""
    return max(size, min(2 * size, SMALL))


def finish_backbone(
    backbone: keras.Model, source: Source, views: Views, seed: int
) -> tuple[keras.Model, Whitening | None]:
    """(the backbone with its features by quarters whitened, the whitening).

    (the backbone as it is, None) where the features do not vary. The whitening is fitted to the evaluation
    views of at most FITTED_IMAGES images, drawn by the seed. Their features are computed in float32, as by
    the commands that open the exported file.

    views: views of the size at which the backbone will read images.
    """
    ids = np.sort(np.random.default_rng(seed).permutation(source.size)[:FITTED_IMAGES])
    copy, float32 = keras_networks.to_stock_layers(backbone), keras.DTypePolicy("float32")
    trained: Any = {id(layer) for layer in backbone._flatten_layers()}
    for layer in copy._flatten_layers():
        if id(layer) not in trained:  # networks of other libraries are not copied
            layer.dtype_policy = float32
    size = views.augmentation.size
    fitted = fit_whitening(extraction.extract(whitening.read_quarters(copy, size), source, views, ids))
    if fitted is None:
        return backbone, None
    return whitening.add_whitening(
        whitening.read_quarters(backbone, size), fitted.mean, fitted.matrix
    ), fitted


def sample_rows(features: np.ndarray) -> np.ndarray:
    """At most FITTED_IMAGES of the rows, evenly spaced."""
    return features[:: -(-len(features) // FITTED_IMAGES)]


def pixel_side(size: int, channels: int) -> int:
    """Side in pixels to which images of `size` pixels are averaged down before their pixels are whitened."""
    return min(size, int((WHITENED_PIXEL_VALUES / channels) ** 0.5))
