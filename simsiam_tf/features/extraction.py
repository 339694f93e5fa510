"""Features of a source's images by a frozen backbone, in memory."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf.data import Source, Views, pipeline
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.display_text import printable_text

MAX_PIXEL_VALUES = 64 * 64 * 3  # raw pixels of images with more numbers than this are shrunk,
SMALL_SIDE = 16  # to this side in pixels
STD_IMAGES = 256  # images of the sample of `inference_std`
PIXEL_BATCH = 256
_BAR: contextvars.ContextVar[Any] = contextvars.ContextVar("bar", default=None)  # of `evaluation_bar`


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
    batches = evaluation_views(source, views, ids, batch_size)
    return concatenate_blocks((encode(x).numpy() for x in batches), len(ids))


def evaluation_views(
    source: Source, views: Views, ids: np.ndarray, batch_size: int | None = None
) -> Iterator[tf.Tensor]:
    """Batches of evaluation views, as by `pipeline.evaluation_views`, counted by `evaluation_bar`.

    batch_size: as for `extract`.
    """
    bar = _BAR.get()
    if bar is not None:
        bar.set_postfix_str("", refresh=False)
    for x in pipeline.evaluation_views(source, views, ids, batch_size or default_batch(source, views)):
        yield x
        if bar is not None:
            bar.update(len(x))
    if bar is not None:
        bar.set_postfix_str("comparing the features")  # which may take longer than to compute them


@contextlib.contextmanager
def evaluation_bar(description: str, images: int) -> Iterator[None]:
    """Shows a progress bar for the evaluations within the block.

    images: number of images that they read in all; an image that several evaluations read counts each time.
    """
    with progress.bar(None, description, total=images, unit="image", leave=False) as bar:
        token = _BAR.set(bar)
        try:
            yield
        finally:
            _BAR.reset(token)


def inference_std(backbone: keras.Model, source: Source, views: Views) -> float:
    """`normalised_std` of the features of a sample of images in inference mode.

    The counterpart of `metrics.collapse_std`, which measures embeddings of a training batch: in training, BN
    normalises by the statistics of the batch.
    """
    ids = np.unique(np.linspace(0, source.size - 1, STD_IMAGES).astype(int))
    return normalised_std(extract(backbone, source, views, ids))


def normalised_std(features: np.ndarray) -> float:
    """Std over the rows of f/‖f‖, times √F, of features f [N, F]; 0 where all rows are equal."""
    x = np.nan_to_num(features.astype(np.float64))
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return float(unit.std(axis=0).mean() * np.sqrt(unit.shape[1]))


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
    shown = contextlib.nullcontext()
    if _BAR.get() is None:
        shown = evaluation_bar(f"pixels of {printable_text(source.name)}", len(ids))
    with shown:
        blocks = (pixels(x, views, side) for x in evaluation_views(source, views, ids, PIXEL_BATCH))
        return concatenate_blocks(blocks, len(ids))


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
