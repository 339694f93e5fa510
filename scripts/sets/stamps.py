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
    """Copies the PNG files; returns their rows. Stamps that are SVG files or mirrored ones are left out.

    label: the folder of the first level. group: the first word of the name, so that a lion is not told by
    another lion.
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
    """ "lion" of "lion-2"; a name that begins with a number, such as "005nickel", as it is."""
    return re.split(r"[-_\d]", name, maxsplit=1)[0] or name
