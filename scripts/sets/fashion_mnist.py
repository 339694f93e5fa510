"""Fashion-MNIST as files."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

from .array_sets import write_images
from .packages import Packages
from .set_file import Picture


def make(packages: Packages, folder: Path) -> list[Picture]:
    """Writes Fashion-MNIST, of Debian's package, as PNG files; returns their rows."""
    root = packages.debian("dataset-fashion-mnist") / "usr/share/datasets/fashion-mnist"
    with mock.patch.dict(os.environ, FASHION_MNIST_DIR=str(root)):
        return write_images("fashion_mnist", folder)
