"""From file to folder and from folder to file, with what was found in words."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from simsiam_tf import nets
from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.pretrained.torch_weights.backbone_layout import Converted, from_torch, grouped, to_torch
from simsiam_tf.pretrained.torch_weights.key_names import LAYOUTS, OTHERS
from simsiam_tf.pretrained.torch_weights.torch_files import OURS, Checkpoint, as_array, open_checkpoint, write
from simsiam_tf.runtime.atomic_files import check_writable
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

STEMS = {  # of 3×3, in words
    "cifar": "stride 1, padding 1", "cifar_pad2": "stride 1, padding 2, as solo-learn's", "small": "stride 2",
}  # fmt: skip
_MOVING = ("running_mean", "running_var", "num_batches_tracked")  # buffers, which no optimizer moves


def to_folder(
    where: str,
    out: Path | str,
    layout: str = "auto",
    stem: str = "auto",
    augmentation: str = "auto",
    image_size: int | None = None,
    prefix: str | None = None,
) -> str:
    """Writes a folder that `open_pretrained` takes from a file of PyTorch; what was found, in words.

    Args:
        where: the file.
        out: the folder; made when missing.
        layout, stem, prefix: as for `from_torch`.
        augmentation: a key of `AUGMENTATIONS`, whose size and normalisation the backbone expects; by its stem
            and channels when "auto".
        image_size: side of the images; the augmentation's when None.
    """
    folder = Path(out).expanduser()
    check_writable(folder, folders=True)
    checkpoint = open_checkpoint(where)
    if stem == "auto" and checkpoint.about.get("stem") in nets.STEMS:
        stem = checkpoint.about["stem"]
    found = from_torch(checkpoint.state, layout, stem, where, prefix)
    momentum = _momentum(checkpoint, found)
    if augmentation == "auto":
        gray = found.architecture["channels"] == 1
        augmentation = (
            "grayscale" if gray else "imagenet" if found.architecture["stem"] == "imagenet" else "cifar"
        )
    chosen = dataclasses.replace(
        AUGMENTATIONS[augmentation], size=image_size or AUGMENTATIONS[augmentation].size
    )
    origin = {"file": Path(where).name, "sha256": backbone_file.sha256(Path(where).expanduser())}
    facts = {
        "converted from": origin,
        "layout": found.layout, "architecture": found.architecture, "heads": found.flags,
        "epoch": checkpoint.epoch, "left out": list(found.left_out), "views": dataclasses.asdict(chosen),
    }  # fmt: skip
    parts = {**found.parts, **{f"momentum_{name}": part for name, part in momentum.items()}}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = backbone_file.export_parts(parts, folder, facts)
    except OSError as error:
        raise UserError(f"out={out}: cannot be written ({error.strerror or error}).") from error
    lines = [*_said(found), f"  images     {augmentation}, {chosen.size} pixels", f"  written    {path}"]
    return "\n".join([*lines, *_continued(found, checkpoint, bool(momentum), folder)])


def _said(found: Converted) -> list[str]:
    a, flags = found.architecture, found.flags
    about = LAYOUTS[found.layout].about if found.layout in LAYOUTS else OTHERS[found.layout]
    lines = [f"names of   {about}"]
    if found.others:
        there = ", ".join(other.rstrip(".") or '""' for other in found.others)
        lines.append(printable_text(
            f"  taken      {found.prefix.rstrip('.') or 'the outermost network'}; also there, and "
            f"for `prefix` to choose: {there}"
        ))  # fmt: skip
    lines.append(
        f"  network    {a['name']}, {a['stem']} stem, width {a['width']:g}, {a['channels']} channels, "
        f"{found.backbone.output_shape[-1]} features"
    )
    if a["stem"] in STEMS:
        doubt = "" if found.stem_known else "; an assumption, since weights do not tell: else pass `stem`"
        lines.append(f"  stem       3×3, {STEMS[a['stem']]}{doubt}")
    if flags:
        lines.append(f"  d          {flags['d']}; {' and '.join(found.heads)}: {_as_flags(flags)}")
    if found.left_out:
        lines.append(f"  left out   {grouped(found.left_out)}")
    return lines


def _momentum(checkpoint: Checkpoint, found: Converted) -> dict[str, keras.Model]:
    """SGD's momentum as networks like those that it moves; empty where the file has none that fits.

    PyTorch numbers the parameters of an optimizer; in the order of the model they are those of its
    state_dict without the buffers.
    """
    try:
        groups, state = checkpoint.optimizer["param_groups"], checkpoint.optimizer["state"]
        numbers = [number for group in groups for number in group["params"]]
        names = [n for n in checkpoint.state if not n.endswith(_MOVING)]
        if len(numbers) != len(names) or not state or any(g.get("nesterov") for g in groups):
            return {}
        if all(of.get("momentum_buffer") is None for of in state.values()):  # as of Adam
            return {}
        moved = {n: np.zeros_like(a) for n, a in checkpoint.state.items()}
        for name, number in zip(names, numbers, strict=True):
            buffer = state.get(number, {}).get("momentum_buffer")
            if buffer is not None:
                buffer = as_array(name, buffer)
                if buffer.shape != moved[name].shape or not np.isfinite(buffer).all():
                    return {}
                moved[name] = buffer
        stem = str(found.architecture["stem"])
        layout = found.layout if found.layout in LAYOUTS else "auto"
        return from_torch(moved, layout, stem, "", found.prefix).parts
    except (KeyError, TypeError, AttributeError, UserError):
        return {}


def _continued(found: Converted, checkpoint: Checkpoint, momentum: bool, folder: Path) -> list[str]:
    """How pre-training goes on from what was converted."""
    if "predictor" not in found.heads or checkpoint.epoch is None:
        return []
    a = found.architecture
    network = {"backbone": a["name"], "stem": a["stem"], "width": a["width"], **found.flags}
    if found.layout == "facebookresearch":  # whose code changes the rate once an epoch
        network["lr_update"] = "epoch"
    kept = "with its momentum" if momentum else "whose momentum is not in the file"
    where = shlex.quote(str(folder))
    return [
        f"  epoch      {checkpoint.epoch}, {kept}; to go on, with `epochs` and rates as they were:",
        f"             python -m simsiam_tf.pretrain --data=… --epochs=… --weights={where} "
        f"--start_epoch={checkpoint.epoch} {_as_flags(network)}",
    ]


def to_file(where: str, out: Path | str, layout: str = "auto") -> str:
    """Writes networks of ours as a file of PyTorch; what was written, in words.

    Heads go with the backbone where the folder has them and the layout names for them.

    Args:
        where: a finished work folder or a .keras file.
        out: .safetensors or .pth.
        layout: whose names; torchvision's when "auto".
    """
    layout = "torchvision" if layout == "auto" else layout
    names = LAYOUTS[layout]
    check_writable(Path(out).expanduser(), folders=True)
    backbone, card = backbone_file.load(where), backbone_file.card(where)
    heads = {name: backbone_file.load_part(where, name) for name in backbone_file.HEADS}
    heads = {name: head for name, head in heads.items() if head is not None}
    unnamed, heads = (heads, {}) if not names.projector else ({}, heads)
    state = to_torch(backbone, layout, heads)
    about = {k: card.get(k) for k in ("data", "views")}
    about["source"] = backbone_file.sha256(backbone_file.located(where))
    found = from_torch(state, layout, _stem(backbone))
    about["stem"] = found.architecture["stem"]
    envelope = None
    if names.envelope:
        envelope = {"arch": found.architecture["name"], "epoch": _epoch(card), OURS: json.dumps(about)}
    path = write(state, out, about, envelope)
    parts = ", ".join(["backbone", *heads])
    lines = [f"{path}: {parts}: {len(state)} arrays by the names of {names.about}"]
    if unnamed:
        lines.append(f"  left out   {', '.join(unnamed)}, which have no names there")
    if layout == "solo_learn" and about["stem"] in ("cifar", "small"):
        lines.append(f"  stem       3×3, {STEMS[about['stem']]}; solo-learn's own CIFAR stem has padding 2")
    has_bn = "projector" in found.heads and nets.BN_PLACEMENT[found.flags["bn"]].proj_output
    if names.last_bias and has_bn and found.flags["output_affine"]:
        lines.append("  projector  its output BN has γ and β, which that program's has not: it loads them "
                     "only where its BN is made affine")  # fmt: skip
    return "\n".join(lines)


def _stem(backbone: keras.Model) -> str:
    """The stem of one of our ResNets, by its layers."""
    names = {layer.name: layer for layer in backbone.layers}
    if "stem_pool" in names:
        return "imagenet"
    if "stem_wider" in names:
        return "cifar_pad2"
    return "small" if names["stem_conv"].strides[0] == 2 else "cifar"


def _epoch(card: Mapping[str, Any]) -> int:
    """Epochs that a folder's network was trained for; 0 where its card does not say."""
    known = card.get("epoch")
    if known is None and isinstance(card.get("configuration"), dict):
        known = card["configuration"].get("epochs")
    return int(known) if isinstance(known, int | float) and not isinstance(known, bool) else 0


def _as_flags(options: dict) -> str:
    return " ".join(f"--{text}" for text in backbone_file.options_text(options).split())
