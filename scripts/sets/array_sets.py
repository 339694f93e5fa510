"""Sets that the package opens as arrays, written as PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from simsiam_tf.command_line import cli

from .set_file import Picture


def write_images(data: str, folder: Path) -> list[Picture]:
    """Writes the images of both splits of "fashion_mnist" or "digits"; returns their rows.

    label: class. Pictures have no group, object or domain: train rows tell the class of test rows.
    """
    with cli.heavy_imports():
        from simsiam_tf.data import open_source
    pictures = []
    for split in ("train", "test"):
        source = open_source(data, split)
        assert source.labels is not None
        for i, label in enumerate(source.labels.tolist()):
            path = f"{split}/{i // 1000:02d}/{i:05d}.png"
            if not i % 1000:
                (folder / path).parent.mkdir(parents=True)
            Image.fromarray(np.squeeze(source.decode(i).numpy(), -1)).save(folder / path)
            pictures.append(Picture(path, source.class_names[label], split=split))
    return pictures
