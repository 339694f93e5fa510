"""Pictures of images and their views, to look at before a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from simsiam_tf.data import Source, Views, pipeline, subset
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.data.sources.overview import odd_images
from simsiam_tf.runtime import atomic_files

GAP = 4  # white pixels around each picture


def grid(source: Source, views: Views, seed: int, rows: int = 8) -> np.ndarray:
    """A picture whose rows show an image's evaluation view and its random views: uint8 [H, W, 1 or 3].

    Of encoded images, the odd ones come first (`odd_images`). Of more than three channels the first three are
    shown, of two the first.

    rows: number of images, or all where the source has fewer.
    """
    rows = min(rows, source.size)
    if isinstance(source, EncodedSource):
        spread = np.linspace(0, source.size - 1, rows).astype(np.int64)
        ids = list(dict.fromkeys([*odd_images(source).tolist(), *spread.tolist(), *range(rows)]))
        source = subset(source, ids[:rows], source.name)
    (batch,) = pipeline.StepBatches(source, views, rows, seed).dataset(0, 1)
    (whole,) = pipeline.evaluation_views(source, views, batch["index"], rows)
    order = np.argsort(batch["index"])  # a batch is shuffled
    columns = [views.denormalise(x).numpy()[order] for x in (whole, *batch["views"])]
    zoom = max(1, 112 // views.augmentation.size)
    columns = [x.repeat(zoom, axis=1).repeat(zoom, axis=2) for x in columns]
    side = max(x.shape[1] for x in columns)  # small views stand above white

    def column(x: np.ndarray) -> np.ndarray:
        pad = [(0, 0), (GAP, GAP + side - x.shape[1]), (GAP, GAP), (0, 0)]
        return np.concatenate(np.pad(x, pad, constant_values=255))

    columns = [column(x) for x in columns]
    picture = np.concatenate(columns, axis=1)
    return picture if source.channels == 1 else picture[..., : 3 if source.channels >= 3 else 1]


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes a picture as PNG. Raises OSError where the file cannot be written."""
    atomic_files.atomic_write_bytes(path, tf.io.encode_png(picture).numpy())
