"""Emoji as four vendors draw them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from simsiam_tf.runtime.errors import UserError

from .packages import Packages
from .set_file import Picture

VENDORS = ("apple", "google", "twitter", "facebook")


def make(packages: Packages, folder: Path) -> list[Picture]:
    """Copies the drawings of 64 pixels; returns their rows.

    label: category. group: the code's first code point. Variants in skin tone and hair, and those made by a
    gender sign, share it, so they do not vote for each other. object: the code; "" in a skin tone, since the
    pair question (`set_file.Picture`) is asked only of drawings without one.
    """
    pictures = []
    for vendor in VENDORS:
        images = f"img/{vendor}/64/"
        package = packages.npm(
            f"emoji-datasource-{vendor}",
            lambda path, images=images: path == "emoji.json" or path.startswith(images),
        )
        (folder / vendor).mkdir(parents=True)
        for emoji in json.loads((package / "emoji.json").read_text(encoding="utf-8")):
            code = emoji["unified"]
            toned = [(drawing, "") for drawing in emoji.get("skin_variations", {}).values()]
            for drawing, object_ in [(emoji, code), *toned]:
                source = package / images / drawing["image"]
                if drawing[f"has_img_{vendor}"] and source.is_file():
                    path = f"{vendor}/{source.name}"
                    shutil.copyfile(source, folder / path)
                    pictures.append(Picture(path, emoji["category"], code.partition("-")[0], object_, vendor))
    if not pictures:
        raise UserError("emoji: the packages hold no drawings of 64 pixels.")
    return pictures
