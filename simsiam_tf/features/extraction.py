"""Features of a source's images by a frozen backbone, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf.data import Source, Views, pipeline
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.display_text import printable_text

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


def raw_pixels(
    source: Source, views: Views, ids: np.ndarray | None = None, side: int | None = None
) -> np.ndarray:
    """The pixels of evaluation views as features: float32 [N, F] in [0, 1], a baseline.

    side: to which the views are averaged down. When None, images of more than `MAX_PIXEL_VALUES` numbers are
    shrunk as by `small_pixels`, and others stay as they are.
    """
    ids = _ids(source, ids)
    shown = f"pixels of {printable_text(source.name)}"
    with progress.bar(None, shown, total=len(ids), unit="image", leave=False) as bar:

        def block(x: tf.Tensor) -> np.ndarray:
            bar.update(len(x))
            return pixels(x, views, side)

        return concatenate_blocks(map(block, pipeline.evaluation_views(source, views, ids)), len(ids))


def pixels(images: tf.Tensor, views: Views, side: int | None = None) -> np.ndarray:
    """The pixels of normalised images: float32 [B, F] in [0, 1]. side: as for `raw_pixels`."""
    x, shape = views.denormalise(images), images.shape[1:]
    if side is None and (shape.num_elements() or 0) > MAX_PIXEL_VALUES:
        return small_pixels(x).numpy()
    x = tf.cast(x, tf.float32)
    if side not in (None, shape[0]):
        x = tf.image.resize(x, [side, side], "area")
    return x.numpy().reshape(len(x), -1) / np.float32(255)


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
        traced = tf.function(encode, autograph=False)

        def function(x: tf.Tensor) -> tf.Tensor:
            # NOTE: chosen by hand, since calls of `traced` warn of retracing where networks are many.
            return traced.get_concrete_function(tf.TensorSpec(x.shape, x.dtype))(x)

        object.__setattr__(backbone, "_features", function)
    return getattr(backbone, "_features")  # noqa: B009 - Keras' type does not declare it
