"""Finishing of features: they are centred and whitened by a linear map, which an exported backbone holds.

Of learned features, few directions hold most of the variance, so that they alone decide which images are near
each other. Whitening gives all directions a variance of about 1. Its shrinkage leaves those small that hold
little more than noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from simsiam_tf.data import Source, Views, pipeline
from simsiam_tf.evaluate.label_free import retrieval
from simsiam_tf.features import extraction
from simsiam_tf.nets import keras_networks, whitening

SHRINKAGES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)  # to choose from; of the mean variance
SHRINKAGE = 0.1  # without crops to choose by
PAIRS = 2048  # most images of which crops are taken
CROP_AREA = (0.4, 0.9)  # share of an image that a crop covers
IMAGES = 20_000  # most images whose features are measured
BLOCK = 2**22  # numbers computed in float64 at a time
WHITENED_PIXEL_VALUES = 32 * 32 * 3  # pixels are averaged down to so many before they are whitened
Encoder = Callable[[Any], np.ndarray]  # normalised images [B, S, S, C] → features [B, F]


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


def fit_whitening(
    features: np.ndarray, shrinkage: float | None = None, pairs: tuple[np.ndarray, np.ndarray] | None = None
) -> Whitening | None:
    """Measures how features [N, F] are whitened; None where they do not vary, as after a collapse.

    Along a principal component of variance v, features are divided by √(v + shrinkage · mean variance). Then
    they are rotated back (ZCA), so that the matrix is symmetric. The rotation changes no distance and no
    cosine. With it, each number still belongs to the feature in its place, and the matrix does not depend on
    the signs and the order of the components, which are arbitrary where variances are equal.

    shrinkage: at least 0; when None, chosen by `pairs`, or without these `default_shrinkage`. pairs: features
    [M, F] of images, and of crops of the same images (`crop_pairs`). The shrinkage is chosen with which most
    crops are nearest to their own image.
    """
    rows, width = features.shape
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

    def scales(shrinkage: float) -> np.ndarray:
        return 1 / np.sqrt(variances + shrinkage * variances.mean())

    if shrinkage is None and pairs is not None:
        images, crops = ((f.astype(np.float64) - mean) @ axes for f in pairs)
        found = [retrieval(images * scales(s), crops * scales(s))["recall1"] for s in SHRINKAGES]
        shrinkage = SHRINKAGES[int(np.argmax(found))]
    if shrinkage is None:
        shrinkage = default_shrinkage(rows, width)
    return Whitening(mean, (axes * scales(shrinkage)) @ axes.T, shrinkage, rows)


def default_shrinkage(rows: int, width: int) -> float:
    """SHRINKAGE, or width / rows where that is more: the variances of few rows are chance."""
    return max(SHRINKAGE, width / rows)


def crop_pairs(encode: Encoder, source: Source, views: Views, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of at most PAIRS images, and of a random crop of each: [M, F], [M, F].

    encode: normalised images [B, S, S, C] → features [B, F]. views: their size and normalisation.
    """
    augmentation = dataclasses.replace(
        views.augmentation.with_crop_and_flip_alone(), area=CROP_AREA, flip_p=0.0, vertical_flip_p=0.0,
        rotate_p=0.0,
    )  # fmt: skip
    batch = min(256, source.size)
    batches = pipeline.StepBatches(source, Views(augmentation, count=1), batch, seed)
    ids, crops = [], []
    for element in batches.dataset(0, min(PAIRS, source.size) // batch):
        ids.append(element["index"].numpy())
        crops.append(encode(element["views"][0]))
    images = [encode(x) for x in pipeline.evaluation_views(source, views, np.concatenate(ids), batch)]
    return np.concatenate(images), np.concatenate(crops)


def finish_backbone(
    backbone: keras.Model, source: Source, views: Views, seed: int
) -> tuple[keras.Model, Whitening | None]:
    """Adds a whitening to a backbone; returns both, or (the backbone, None) where the features do not vary.

    The whitening is measured on the evaluation views of at most IMAGES images, drawn by the seed. They are
    computed in float32, as the commands compute them that open the exported file.
    """
    ids = np.sort(np.random.default_rng(seed).permutation(source.size)[:IMAGES])
    copy, float32 = keras_networks.to_stock_layers(backbone), keras.DTypePolicy("float32")
    trained: Any = {id(layer) for layer in backbone._flatten_layers()}
    for layer in copy._flatten_layers():
        if id(layer) not in trained:  # networks of other libraries are not copied
            layer.dtype_policy = float32
    pairs = crop_pairs(encoder(copy), source, views, seed)
    fitted = fit_whitening(extraction.extract(copy, source, views, ids), pairs=pairs)
    if fitted is None:
        return backbone, None
    return whitening.add_whitening(backbone, fitted.mean, fitted.matrix), fitted


def finish_pixels(train: np.ndarray, source: Source, views: Views, side: int, seed: int) -> Whitening | None:
    """Measures how raw pixels [N, S·S·C] of a source's images are whitened, as those of a backbone.

    side: S, to which the images are averaged down.
    """
    pairs = crop_pairs(lambda x: extraction.pixels(x, views, side), source, views, seed)
    return fit_whitening(train[:: -(-len(train) // IMAGES)], pairs=pairs)


def encoder(backbone: keras.Model) -> Encoder:
    """Normalised images → the features of a backbone, as an array."""
    return lambda x: extraction.forward(backbone)(x).numpy()


def pixel_side(size: int, channels: int) -> int:
    """Pixels a side that images of `size` are averaged down to before they are whitened."""
    return min(size, int((WHITENED_PIXEL_VALUES / channels) ** 0.5))


def _blocks(features: np.ndarray) -> list[slice]:
    step = max(1, BLOCK // features.shape[1])
    return [slice(start, start + step) for start in range(0, len(features), step)]
