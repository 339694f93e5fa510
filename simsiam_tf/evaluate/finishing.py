"""Finishing of features: read by quarters, centred and whitened by a linear map, all in an exported backbone.

Of learned features, few directions hold most of the variance, so that they alone decide which images are near
each other. Whitening gives all directions a variance of about 1. Its shrinkage leaves those small that hold
little more than noise.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from simsiam_tf.data import Source, Views
from simsiam_tf.data.augment.eval_transform import SMALL
from simsiam_tf.features import extraction
from simsiam_tf.nets import keras_networks, whitening

SHRINKAGE = 0.1  # of the mean variance, at least (docs/evaluate.md)
PIXEL_SHRINKAGE = 3.0  # for raw pixels
MOST_SHRINKAGE = 3.0  # of features of few images
IMAGES = 20_000  # most images whose features are measured
BLOCK = 2**22  # numbers computed in float64 at a time
WHITENED_PIXEL_VALUES = 32 * 32 * 3  # pixels are averaged down to so many before they are whitened


@dataclasses.dataclass(frozen=True)
class Whitening:
    """x → (x − mean) · matrix.

    mean: [F]. matrix: [F, F], symmetric; both float64. shrinkage: as for `fit_whitening`. rows: number of
    features that were measured.
    """

    mean: np.ndarray
    matrix: np.ndarray
    shrinkage: float
    rows: int

    def __call__(self, features: np.ndarray, in_place: bool = False) -> np.ndarray:
        """Whitened features, float32 [N, F]. in_place: write them over `features`, which are float32."""
        out = features if in_place else np.empty(features.shape, np.float32)
        for rows in _blocks(features):
            out[rows] = (features[rows].astype(np.float64) - self.mean) @ self.matrix
        return out


def chosen_shrinkage(features: np.ndarray, least: float = SHRINKAGE) -> float:
    """The shrinkage for features [N, F]: F/N, but at least `least` and, if that is smaller, at most 3.

    Of fewer images than features, whitening with little shrinkage would make all images about equally far
    from each other.
    """
    rows, width = features.shape
    return max(least, min(width / rows, MOST_SHRINKAGE))


def fit_whitening(features: np.ndarray, shrinkage: float | None = None) -> Whitening | None:
    """Measures how features [N, F] are whitened; None where they do not vary, as after a collapse.

    Along a principal component of variance v, features are divided by √(v + shrinkage · mean variance). Then
    they are rotated back (ZCA), so that the matrix is symmetric. The rotation changes no distance and no
    cosine. With it, each number still belongs to the feature in its place, and the matrix does not depend on
    the signs and the order of the components, which are arbitrary where variances are equal.

    shrinkage: at least 0; `chosen_shrinkage` when None.
    """
    rows, width = features.shape
    shrinkage = chosen_shrinkage(features) if shrinkage is None else shrinkage
    mean = sum(features[part].sum(axis=0, dtype=np.float64) for part in _blocks(features)) / rows
    covariance = np.zeros((width, width))
    for part in _blocks(features):
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
    """Evaluation views of `size` pixels, normalised as others are."""
    return Views(dataclasses.replace(views.augmentation, size=size))


def default_read_size(size: int) -> int:
    """Pixels at which images are read by a network that was trained on views of `size` pixels."""
    return max(size, min(2 * size, SMALL))


def finish_backbone(
    backbone: keras.Model, source: Source, views: Views, seed: int
) -> tuple[keras.Model, Whitening | None]:
    """A backbone that reads quarters and whitens them; (the backbone, None) where the features do not vary.

    The whitening is measured on the evaluation views of at most IMAGES images, drawn by the seed. They are
    computed in float32, as the commands compute them that open the exported file.

    views: of the size at which the backbone will read images.
    """
    ids = np.sort(np.random.default_rng(seed).permutation(source.size)[:IMAGES])
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
    """At most IMAGES of the rows, evenly spaced."""
    return features[:: -(-len(features) // IMAGES)]


def pixel_side(size: int, channels: int) -> int:
    """Pixels a side that images of `size` are averaged down to before they are whitened."""
    return min(size, int((WHITENED_PIXEL_VALUES / channels) ** 0.5))


def _blocks(features: np.ndarray) -> list[slice]:
    step = max(1, BLOCK // features.shape[1])
    return [slice(start, start + step) for start in range(0, len(features), step)]
