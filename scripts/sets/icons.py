"""Icons as the authors of several themes draw them."""

from __future__ import annotations

import collections
import dataclasses
import os
import shutil
from pathlib import Path

from simsiam_tf.runtime.errors import UserError

from .packages import Packages
from .pixels import on_white, pixel_digest
from .set_file import Picture

# Theme → (package, files of 48 pixels). Left out are themes with the drawings of another: MATE and Adwaita
# (those of GNOME), Faenza (in Obsidian).
THEMES = {
    "oxygen": ("oxygen-icon-theme", "usr/share/icons/oxygen/base/48x48/{context}/*.png"),
    "gnome": ("gnome-icon-theme", "usr/share/icons/gnome/48x48/{context}/*.png"),
    "elementary": ("elementary-xfce-icon-theme", "usr/share/icons/elementary-xfce/{context}/48/*.png"),
    "obsidian": ("obsidian-icon-theme", "usr/share/icons/Obsidian/{context}/48/*.png"),
    "paper": ("paper-icon-theme", "usr/share/icons/Paper/48x48/{context}/*.png"),
}
CONTEXTS = (
    "actions", "apps", "categories", "devices", "emblems", "emotes", "mimetypes", "places", "status",
)  # fmt: skip
OTHER_NAMES = {"mimetypes": ("mimetypes", "mimes")}  # of a context's folder


@dataclasses.dataclass
class Icon:
    """A drawing of a theme: its context, its file, and its names, that of the file first."""

    context: str
    file: Path
    names: list[str]


def make(packages: Packages, folder: Path) -> list[Picture]:
    """Copies the icons of 48 pixels; returns their rows.

    label: context. object: the icon's name, where another theme has it. Links and copies within a theme are
    further names of one icon. An icon whose pixels another theme has too is left out of the second one.
    """
    themes, pixels = {}, set()
    for theme, (package, pattern) in THEMES.items():
        icons = theme_icons(packages.debian(package), pattern)
        themes[theme] = {digest: icon for digest, icon in icons.items() if digest not in pixels}
        pixels |= icons.keys()
    themes_with = collections.Counter(
        name for icons in themes.values() for name in {name for icon in icons.values() for name in icon.names}
    )
    pictures = []
    for theme, icons in themes.items():
        for icon in icons.values():
            path = f"{theme}/{icon.context}/{icon.file.name}"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(icon.file, folder / path)
            shared = next((name for name in icon.names if themes_with[name] > 1), "")
            pictures.append(Picture(path, icon.context, shared or icon.file.stem, shared, theme))
    if not pictures:
        raise UserError("icons: the packages hold no icons of 48 pixels.")
    return pictures


def theme_icons(package: Path, pattern: str) -> dict[str, Icon]:
    """Digest of the pixels → icon."""
    icons: dict[str, Icon] = {}
    links, place = [], {}
    for context in CONTEXTS:
        for spelling in OTHER_NAMES.get(context, (context,)):
            for file in sorted(package.glob(pattern.format(context=spelling))):
                if file.is_symlink():
                    links.append(file)
                elif not file.stem.endswith("-symbolic"):
                    digest = pixel_digest(on_white(file))
                    icon = place[os.path.realpath(file)] = icons.setdefault(digest, Icon(context, file, []))
                    icon.names.append(file.stem)
    for link in links:
        icon = place.get(os.path.realpath(link))
        if icon and link.stem not in icon.names:
            icon.names.append(link.stem)
    return icons
