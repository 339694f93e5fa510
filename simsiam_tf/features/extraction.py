"""Features of a source's images by a frozen backbone, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf.data import Source, Views, pipeline

MAX_PIXEL_VALUES = 64 * 64 * 3  # numbers in an image; of larger ones, raw pixels are those of a small picture
SMALL_SIDE = 16  # pixels of that picture


def extract(
    backbone: keras.Model,
    source: Source,
    views: Views,
    ids: np.ndarray | None = None,
    batch_size: int | None = None,
) -> np.ndarray:
    """Backbone features of the evaluation views, BN in inference mode: float32 [N, F].

    ids: ids of the images, in the order of the rows; all images of the source when None.
    batch_size: images per call; when None 256, or up to 1,024 for small images.
    """
    ids, encode = _ids(source, ids), forward(backbone)
    batches = pipeline.evaluation_views(source, views, ids, batch_size or default_batch(source, views))
    return concatenate_blocks((encode(x).numpy() for x in batches), len(ids))


def default_batch(source: Source, views: Views) -> int:
    """Images per call: 256, or up to 1,024 for small ones."""
    return max(256, min(1024, 2**20 // (views.augmentation.size**2 * source.channels)))


def raw_pixels(source: Source, views: Views, ids: np.ndarray | None = None) -> np.ndarray:
    """The pixels of evaluation views as features: float32 [N, S·S·C] in [0, 1], a baseline.

    Images of more than `MAX_PIXEL_VALUES` numbers are shrunk first, as by `small_pixels`.
    """
    ids = _ids(source, ids)
    large = views.augmentation.size**2 * source.channels > MAX_PIXEL_VALUES

    def pixels(x: tf.Tensor) -> np.ndarray:
        images = views.denormalise(x)
        return small_pixels(images).numpy() if large else images.numpy().reshape(len(images), -1)

    blocks = map(pixels, pipeline.evaluation_views(source, views, ids))
    rows = concatenate_blocks(blocks, len(ids))
    if not large:
        rows /= np.float32(255)
    return rows


def small_pixels(images: tf.Tensor) -> tf.Tensor:
    """Pixels of images, shrunk to at most 16×16 with antialiasing: uint8 [B, S, S, C] → [B, F] in [0, 1]."""
    shape: Any = images.shape
    side = min(SMALL_SIDE, shape[1])
    small = tf.image.resize(images, [side, side], antialias=True) / 255.0
    return tf.reshape(small, [-1, side * side * shape[-1]])


def _ids(source: Source, ids: np.ndarray | None) -> np.ndarray:
    return np.arange(source.size) if ids is None else np.asarray(ids)


def concatenate_blocks(blocks: Iterable[np.ndarray], rows: int) -> np.ndarray:
    """Blocks [n, F] as one float32 array [rows, F], never with two copies in memory."""
    features, at = np.empty((0, 0), np.float32), 0
    for block in blocks:
        if at == 0:
            features = np.empty((rows, *block.shape[1:]), np.float32)
        features[at : at + len(block)] = block
        at += len(block)
        del block  # before the next is made
    assert at == rows
    return features


def forward(backbone: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Normalised images → float32 outputs: a compiled function, kept with the model and made once."""
    if not hasattr(backbone, "_features"):
        encode = lambda x: tf.cast(backbone(x, training=False), tf.float32)  # noqa: E731
        function = tf.function(encode, reduce_retracing=True, autograph=False)
        object.__setattr__(backbone, "_features", function)
    return getattr(backbone, "_features")  # noqa: B009 - Keras' type does not declare it
