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
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

SPRITE = 48  # pixels of a picture at the most
SIDE = 8192  # pixels of the whole sheet at the most: what a browser takes


def write(known: Sample, logdir: Path) -> Path:
    """Writes embeddings, names, groups and pictures of a sample where TensorBoard looks for them.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = logdir / "projector"
    sheet, size = _sheet(known.pictures(np.arange(len(known.ids))))
    lines = [f"{_plain(known.name(i))}\t{_plain(known.names[g])}\n" for i, g in enumerate(known.groups)]
    config = projector.ProjectorConfig()
    shown = config.embeddings.add()
    shown.tensor_name = "features"
    shown.tensor_path, shown.metadata_path = "projector/features.tsv", "projector/names.tsv"
    shown.sprite.image_path = "projector/pictures.png"
    shown.sprite.single_image_dim.extend([size, size])
    features, group = io.StringIO(), "class" if known.labelled else "group"
    np.savetxt(features, known.features, "%.6g", "\t")
    atomic_files.check_no_links(logdir.parent, (), (logdir.name, f"{logdir.name}/projector"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_files.atomic_write_text(folder / "features.tsv", features.getvalue())
        atomic_files.atomic_write_text(folder / "names.tsv", f"name\t{group}\n" + "".join(lines))
        atomic_files.atomic_write_bytes(folder / "pictures.png", tf.io.encode_png(sheet).numpy())
        atomic_files.atomic_write_text(logdir / "projector_config.pbtxt", str(config))
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}). Make room, or pass tensorboard=false, which "
            "leaves it out."
        ) from error
    return folder


def _sheet(images: np.ndarray) -> tuple[np.ndarray, int]:
    """(all images in one square of squares, row by row, and the side of each in pixels)."""
    side = math.ceil(math.sqrt(len(images)))
    size = min(SPRITE, images.shape[1], SIDE // side)
    small = np.uint8(np.rint(tf.image.resize(images, [size, size], antialias=True).numpy()))
    filled = np.zeros((side * side, size, size, small.shape[-1]), np.uint8)
    filled[: len(small)] = small
    rows = filled.reshape(side, side, size, size, -1).transpose(0, 2, 1, 3, 4)
    return rows.reshape(side * size, side * size, -1), size


def _plain(text: str) -> str:
    return " ".join(printable_text(text).split())
