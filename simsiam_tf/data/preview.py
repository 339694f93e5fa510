"""Pictures of images and their views, to look at before a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from simsiam_tf.data import Source, Views, pipeline
from simsiam_tf.runtime import atomic_files

GAP = 4  # white pixels between pictures


def grid(source: Source, views: Views, seed: int, rows: int = 8) -> np.ndarray:
    """A picture of images and their views at the first step, one image a row: uint8 [H, W, C]."""
    rows = min(rows, source.size)
    (batch,) = pipeline.StepBatches(source, views, rows, seed).dataset(0, 1)
    (whole,) = pipeline.evaluation_views(source, views, batch["index"], rows)
    columns = [views.denormalise(x).numpy() for x in (whole, *batch["views"])]
    zoom = max(1, 112 // views.augmentation.size)
    columns = [x.repeat(zoom, axis=1).repeat(zoom, axis=2) for x in columns]
    pad = [(0, 0), (GAP, GAP), (GAP, GAP), (0, 0)]
    columns = [np.concatenate(np.pad(x, pad, constant_values=255)) for x in columns]
    return np.concatenate(columns, axis=1)


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes a picture as PNG. Raises OSError."""
    atomic_files.atomic_write_bytes(path, tf.io.encode_png(picture).numpy())
