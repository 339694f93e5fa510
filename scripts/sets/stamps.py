"""Stamps of Tux Paint: photographs and drawings of things, without a background."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from simsiam_tf.runtime.errors import UserError

from .packages import Packages
from .set_file import Picture

PACKAGE, STAMPS = "tuxpaint-stamps-default", "usr/share/tuxpaint/stamps"


def make(packages: Packages, folder: Path) -> list[Picture]:
    """Copies the PNG stamps; returns their rows of set.csv. SVG files and mirrored stamps are left out.

    label: the folder of the first level. group: the label and the first word of the name, so that no lion
    votes for the label of another lion.
    """
    root = packages.debian(PACKAGE) / STAMPS
    pictures = []
    for file in sorted(root.rglob("*.png")):
        path = file.relative_to(root).as_posix()
        if not file.stem.endswith("_mirror"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / path)
            label = path.partition("/")[0]
            pictures.append(Picture(path, label, f"{label}/{first_word(file.stem)}"))
    if not pictures:
        raise UserError(f"stamps: {PACKAGE} holds no PNG file.")
    return pictures


def first_word(name: str) -> str:
    """The first word of a name, as "lion" of "lion-2"; the whole name where it begins with a digit."""
    return re.split(r"[-_\d]", name, maxsplit=1)[0] or name
