"""Features of a source's images by a frozen backbone, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf.data import Source, Views, pipeline


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
    values_per_image = views.augmentation.size**2 * source.channels
    batch_size = batch_size or max(256, min(1024, 2**20 // values_per_image))
    ids, encode = _ids(source, ids), forward(backbone)
    batches = pipeline.evaluation_views(source, views, ids, batch_size)
    return concatenate_blocks((encode(x).numpy() for x in batches), len(ids))


def raw_pixels(
    source: Source, views: Views, ids: np.ndarray | None = None, side: int | None = None
) -> np.ndarray:
    """The pixels of evaluation views as features: float32 [N, S·S·C] in [0, 1], a baseline.

    side: S, to which the views are averaged down; that of the views when None.
    """
    ids = _ids(source, ids)
    blocks = (pixels(x, views, side) for x in pipeline.evaluation_views(source, views, ids))
    return concatenate_blocks(blocks, len(ids))


def pixels(images: tf.Tensor, views: Views, side: int | None = None) -> np.ndarray:
    """The pixels of normalised images: float32 [B, S·S·C] in [0, 1]. side: as for `raw_pixels`."""
    x = tf.cast(views.denormalise(images), tf.float32)
    if side not in (None, x.shape[1]):
        x = tf.image.resize(x, [side, side], "area")
    return x.numpy().reshape(len(x), -1) / np.float32(255)


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
