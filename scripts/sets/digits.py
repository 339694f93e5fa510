"""scikit-learn's digits as files."""

from __future__ import annotations

from pathlib import Path

from .array_sets import write_images
from .packages import Packages
from .set_file import Picture


def make(packages: Packages, folder: Path) -> list[Picture]:
    """Writes the digits, which come with scikit-learn, as PNG files; returns their rows."""
    return write_images("digits", folder)
