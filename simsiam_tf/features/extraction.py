"""Frozen features of a whole source."""

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
    """Backbone features of the centre views, BN in inference mode: float32 [N, F].

    ids: the examples wanted, in that order; all of the source when None.
    batch_size: 256 when None, and up to 1,024 of small images, whose calls cost more than their work.
    """
    numbers = views.augmentation.size**2 * source.channels  # of an image
    batch_size = batch_size or max(256, min(1024, 2**20 // numbers))
    ids = np.arange(source.size) if ids is None else np.asarray(ids)
    encode = forward(backbone)
    return filled((encode(x).numpy() for x in pipeline.centred(source, views, ids, batch_size)), len(ids))


def filled(blocks: Iterable[np.ndarray], rows: int) -> np.ndarray:
    """Blocks [n, F] as one float32 array [rows, F], which is all the memory that is taken.

    Raises:
        MemoryError: there is not enough.
        ValueError: the blocks have another number of rows.
    """
    whole, at = np.empty((0, 0), np.float32), 0
    for block in blocks:
        if at == 0:
            whole = np.empty((rows, *block.shape[1:]), np.float32)
        whole[at : at + len(block)] = block
        at += len(block)
        del block  # before the next is made
    if at != rows:
        raise ValueError(f"{at} rows came of {rows}.")
    return whole


def forward(backbone: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Normalised images → float32 features; one compiled function a model, so that nothing traces twice."""
    if not hasattr(backbone, "_features"):
        encode = lambda x: tf.cast(backbone(x, training=False), tf.float32)  # noqa: E731
        function = tf.function(encode, reduce_retracing=True, autograph=False)
        object.__setattr__(backbone, "_features", function)
    return backbone._features


def pixels(source: Source, views: Views, ids: np.ndarray | None = None) -> np.ndarray:
    """The centre views themselves in [0, 1], flattened: the baseline a backbone must beat."""
    ids = np.arange(source.size) if ids is None else np.asarray(ids)
    blocks = (views.denormalise(x).numpy() for x in pipeline.centred(source, views, ids))
    rows = filled((block.reshape(len(block), -1) for block in blocks), len(ids))
    rows /= np.float32(255)
    return rows
