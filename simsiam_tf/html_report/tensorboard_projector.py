"""Embeddings for TensorBoard's projector, with a small picture of each image."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorboard.plugins import projector

from simsiam_tf.html_report.gallery import Sample
from simsiam_tf.runtime import atomic_files
from simsiam_tf.runtime.display_text import one_line
from simsiam_tf.runtime.errors import UserError

MAX_PICTURE = 48  # pixels of a picture's side
MAX_SHEET = 8192  # pixels of the sheet's side: the most that browsers take


def write_projector(sample: Sample, logdir: Path) -> Path:
    """Writes features, names, groups and pictures of a sample to logdir/projector; returns that folder."""
    folder = logdir / "projector"
    sheet, size = _picture_sheet(sample.pictures(np.arange(len(sample.ids))))
    lines = [f"name\t{'class' if sample.labelled else 'group'}"]
    lines += [f"{one_line(sample.name(i))}\t{one_line(sample.names[g])}" for i, g in enumerate(sample.groups)]
    config = projector.ProjectorConfig()
    embedding = config.embeddings.add(
        tensor_name="features", tensor_path="projector/features.tsv", metadata_path="projector/names.tsv"
    )
    embedding.sprite.image_path = "projector/pictures.png"
    embedding.sprite.single_image_dim.extend([size, size])
    features = io.StringIO()
    np.savetxt(features, sample.features, "%.6g", "\t")
    atomic_files.check_no_links(logdir.parent, (), (logdir.name, f"{logdir.name}/projector"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_files.atomic_write_text(folder / "features.tsv", features.getvalue())
        atomic_files.atomic_write_text(folder / "names.tsv", "\n".join([*lines, ""]))
        atomic_files.atomic_write_bytes(folder / "pictures.png", tf.io.encode_png(sheet).numpy())
        atomic_files.atomic_write_text(logdir / "projector_config.pbtxt", str(config))
    except OSError as error:
        fix = "Make room, or pass tensorboard=false, which leaves it out."
        raise UserError(f"{folder}: cannot be written ({error.strerror}). {fix}") from error
    return folder


def _picture_sheet(images: np.ndarray) -> tuple[np.ndarray, int]:
    """(a square sheet of all images, row by row; pixels of the side of each image)."""
    side = math.ceil(math.sqrt(len(images)))
    size = min(MAX_PICTURE, images.shape[1], MAX_SHEET // side)
    small = np.rint(tf.image.resize(images, [size, size], antialias=True).numpy()).astype(np.uint8)
    cells = np.zeros((side * side, size, size, small.shape[-1]), np.uint8)
    cells[: len(small)] = small
    rows = cells.reshape(side, side, size, size, -1).transpose(0, 2, 1, 3, 4)
    return rows.reshape(side * size, side * size, -1), size
