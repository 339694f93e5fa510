"""From file to folder and from folder to file, with what was found in words."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from simsiam_tf import weights
from simsiam_tf.conversion.backbones import Converted, from_torch, to_torch
from simsiam_tf.conversion.files import read, write
from simsiam_tf.conversion.layouts import LAYOUTS
from simsiam_tf.data import RECIPES
from simsiam_tf.errors import UserError


def to_folder(
    where: str,
    out: Path | str,
    layout: str = "auto",
    stem: str = "auto",
    recipe: str = "auto",
    image_size: int | None = None,
) -> str:
    """Writes a folder that `open_pretrained` takes from a file of PyTorch; what was found, in words.

    Args:
        where: the file.
        out: the folder; made when missing.
        layout, stem: as for `from_torch`.
        recipe: a key of `RECIPES`, whose size and normalisation the backbone expects; by its stem and
            channels when "auto".
        image_size: side of the images; the recipe's when None.
    """
    found = from_torch(read(where), layout, stem, where)
    if recipe == "auto":
        gray = found.architecture["channels"] == 1
        recipe = "grayscale" if gray else "imagenet" if found.architecture["stem"] == "imagenet" else "cifar"
    chosen = dataclasses.replace(RECIPES[recipe], size=image_size or RECIPES[recipe].size)
    facts = {
        "converted from": {"file": Path(where).name, "sha256": weights.sha256(Path(where).expanduser())},
        "layout": found.layout, "architecture": found.architecture, "left out": list(found.left_out),
        "views": dataclasses.asdict(chosen),
    }  # fmt: skip
    folder = Path(out).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = weights.export(found.backbone, folder, facts)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written ({error.strerror}).") from error
    return "\n".join([*_said(found), f"  images     {recipe}, {chosen.size} pixels", f"  written    {path}"])


def _said(found: Converted) -> list[str]:
    a = found.architecture
    lines = [
        f"names of   {LAYOUTS[found.layout].about}",
        f"  network    {a['name']}, {a['stem']} stem, width {a['width']:g}, {a['channels']} channels, "
        f"{found.backbone.output_shape[-1]} features",
    ]
    if found.d:
        lines.append(f"  d          {found.d}; heads are not part of a backbone")
    if found.left_out:
        lines.append(f"  left out   {_grouped(found.left_out)}")
    return lines


def _grouped(names: Iterable[str]) -> str:
    """Names by what comes before their first number or last part, so that hundreds can be read."""
    heads = (re.match(r"((?:[^.]+\.)*?)(?:\d+\.|[^.]+$)", name.removeprefix("module."))[1] for name in names)
    return ", ".join(f"{head}* ({n})" for head, n in Counter(heads).items())


def to_file(where: str, out: Path | str, layout: str = "auto") -> str:
    """Writes a backbone of ours as a file of PyTorch; what was written, in words.

    Args:
        where: a finished work folder or a .keras file.
        out: .safetensors or .pth.
        layout: whose names; torchvision's when "auto".
    """
    layout = "torchvision" if layout == "auto" else layout
    backbone, card = weights.load(where), weights.card(where)
    about = {k: card.get(k) for k in ("data", "views")}
    about["source"] = weights.sha256(weights.located(where))
    path = write(to_torch(backbone, layout), out, about)
    return f"{path}: {len(backbone.weights)} weights by the names of {LAYOUTS[layout].about}"
