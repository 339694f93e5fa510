"""Converts a file of PyTorch weights to a work folder and back, and describes what it did."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import keras
import numpy as np

from simsiam_tf import nets
from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.pretrained.torch_weights.backbone_layout import (
    Converted,
    architecture_of,
    from_torch,
    group_names,
    to_torch,
)
from simsiam_tf.pretrained.torch_weights.key_names import LAYOUTS, READ_ONLY
from simsiam_tf.pretrained.torch_weights.torch_files import (
    METADATA_KEY,
    Checkpoint,
    as_array,
    open_checkpoint,
    write_weights,
)
from simsiam_tf.runtime.atomic_files import check_writable
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

_STEMS_3X3 = {
    "cifar": "stride 1, padding 1", "cifar_pad2": "stride 1, padding 2, as solo-learn's", "small": "stride 2",
}  # fmt: skip
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # tensors that no optimizer updates


def convert_from_torch(
    where: str,
    out: Path | str,
    layout: str = "auto",
    stem: str = "auto",
    augmentation: str = "auto",
    image_size: int | None = None,
    prefix: str | None = None,
) -> str:
    """Converts a file of PyTorch weights to a folder for `open_pretrained`; returns a report.

    Args:
        where: the file.
        out: the folder; created when missing.
        layout, stem, prefix: as for `from_torch`.
        augmentation: a key of `AUGMENTATIONS`, whose size and normalisation the backbone expects; "auto"
            chooses by stem and channels.
        image_size: side of the images; the augmentation's when None.
    """
    folder = Path(out).expanduser()
    check_writable(folder, folders=True)
    checkpoint = open_checkpoint(where)
    if stem == "auto" and checkpoint.metadata.get("stem") in nets.STEMS:
        stem = checkpoint.metadata["stem"]
    converted = from_torch(checkpoint.state, layout, stem, where, prefix)
    momentum = _momentum_networks(checkpoint, converted)
    if augmentation == "auto":
        by_stem = "imagenet" if converted.architecture["stem"] == "imagenet" else "cifar"
        augmentation = "grayscale" if converted.architecture["channels"] == 1 else by_stem
    views = AUGMENTATIONS[augmentation]
    views = dataclasses.replace(views, size=image_size or views.size)
    metadata = {
        "converted from": {
            "file": Path(where).name, "sha256": backbone_file.sha256(Path(where).expanduser()),
        },
        "layout": converted.program, "architecture": converted.architecture, "heads": converted.options,
        "epoch": checkpoint.epoch, "left out": list(converted.left_out), "views": dataclasses.asdict(views),
    }  # fmt: skip
    networks = {**converted.networks, **{f"momentum_{name}": net for name, net in momentum.items()}}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = backbone_file.export_networks(networks, folder, metadata)
    except OSError as error:
        raise UserError(f"out={out}: cannot be written ({error.strerror or error}).") from error
    lines = [*_report(converted), f"  images     {augmentation}, {views.size} pixels", f"  written    {path}"]
    return "\n".join([*lines, *_how_to_continue(converted, checkpoint, bool(momentum), folder)])


def _report(converted: Converted) -> list[str]:
    architecture, program = converted.architecture, converted.program
    title = LAYOUTS[program].title if program in LAYOUTS else READ_ONLY[program]
    lines = [f"names of   {title}"]
    if converted.other_prefixes:
        others = ", ".join(other.rstrip(".") or '""' for other in converted.other_prefixes)
        taken = converted.prefix.rstrip(".") or "the outermost network"
        lines.append(printable_text(f"  taken      {taken}; `prefix` can choose another: {others}"))
    lines.append(
        f"  network    {architecture['name']}, {architecture['stem']} stem, width {architecture['width']:g}, "
        f"{architecture['channels']} channels, {converted.backbone.output_shape[-1]} features"
    )
    if architecture["stem"] in _STEMS_3X3:
        doubt = (
            ""
            if converted.stem_known
            else "; assumed, since weights do not show it: pass `stem` if it is wrong"
        )
        lines.append(f"  stem       3×3, {_STEMS_3X3[architecture['stem']]}{doubt}")
    if converted.options:
        heads, options = " and ".join(converted.heads), _as_flags(converted.options)
        lines.append(f"  d          {converted.options['d']}; {heads}: {options}")
    if converted.left_out:
        lines.append(f"  left out   {group_names(converted.left_out)}")
    return lines


def _momentum_networks(checkpoint: Checkpoint, converted: Converted) -> dict[str, keras.Model]:
    """SGD's momentum in networks of the same layers; empty where the file has none that fits.

    An optimizer of PyTorch has numbers for its parameters. They count the model's state_dict in order,
    without the buffers.
    """
    try:
        groups, state = checkpoint.optimizer["param_groups"], checkpoint.optimizer["state"]
        numbers = [number for group in groups for number in group["params"]]
        names = [n for n in checkpoint.state if not n.endswith(_BUFFERS)]
        if len(numbers) != len(names) or any(group.get("nesterov") for group in groups):
            return {}
        if all(entry.get("momentum_buffer") is None for entry in state.values()):  # as in Adam's state
            return {}
        momentum = {n: np.zeros_like(a) for n, a in checkpoint.state.items()}
        for name, number in zip(names, numbers, strict=True):
            buffer = state.get(number, {}).get("momentum_buffer")
            if buffer is not None:
                buffer = as_array(name, buffer)
                if buffer.shape != momentum[name].shape or not np.isfinite(buffer).all():
                    return {}
                momentum[name] = buffer
        layout = converted.program if converted.program in LAYOUTS else "auto"
        return from_torch(momentum, layout, converted.architecture["stem"], "", converted.prefix).networks
    except (KeyError, TypeError, AttributeError, UserError):
        return {}


def _how_to_continue(
    converted: Converted, checkpoint: Checkpoint, has_momentum: bool, folder: Path
) -> list[str]:
    """The command that continues pre-training from the converted weights."""
    if "predictor" not in converted.heads or checkpoint.epoch is None:
        return []
    architecture = converted.architecture
    options = {"backbone": architecture["name"], "stem": architecture["stem"],
               "width": architecture["width"], **converted.options}  # fmt: skip
    if converted.program == "facebookresearch":  # whose code changes the rate once an epoch
        options["lr_update"] = "epoch"
    where = shlex.quote(str(folder))
    momentum = "with its momentum" if has_momentum else "whose momentum is not in the file"
    return [
        f"  epoch      {checkpoint.epoch}, {momentum}; to continue with the same `epochs` and rates:",
        f"             python -m simsiam_tf.pretrain --data=… --epochs=… --weights={where} "
        f"--start_epoch={checkpoint.epoch} {_as_flags(options)}",
    ]


def convert_to_torch(where: str, out: Path | str, layout: str = "auto") -> str:
    """Writes a run's networks to a file of PyTorch weights; returns a report.

    Heads are written with the backbone where the folder has them and the layout has names for them.

    Args:
        where: a finished work folder or a .keras file.
        out: .safetensors or .pth.
        layout: program whose names the file gets, a key of `LAYOUTS`; torchvision when "auto".
    """
    layout = "torchvision" if layout == "auto" else layout
    names = LAYOUTS[layout]
    check_writable(Path(out).expanduser(), folders=True)
    backbone, card = backbone_file.load_backbone(where), backbone_file.read_card(where)
    heads = {name: backbone_file.load_beside(where, name) for name in backbone_file.HEADS}
    heads = {name: head for name, head in heads.items() if head is not None}
    unnamed, heads = (heads, {}) if not names.projector else ({}, heads)
    state, stem = to_torch(backbone, layout, heads), _stem(backbone)
    metadata = {
        **{k: card.get(k) for k in ("data", "views")},
        "source": backbone_file.sha256(backbone_file.backbone_path(where)), "stem": stem,
    }  # fmt: skip
    envelope = None
    if names.envelope:
        epoch = card.get("epoch")
        if epoch is None and isinstance(card.get("configuration"), dict):
            epoch = card["configuration"].get("epochs")
        epoch = int(epoch) if isinstance(epoch, int | float) and not isinstance(epoch, bool) else 0
        arch = architecture_of(to_torch(backbone), where)["name"]
        envelope = {"arch": arch, "epoch": epoch, METADATA_KEY: json.dumps(metadata)}
    path = write_weights(state, out, metadata, envelope)
    written = ", ".join(["backbone", *heads])
    lines = [f"{path}: {written}: {len(state)} arrays by the names of {names.title}"]
    if unnamed:
        lines.append(f"  left out   {', '.join(unnamed)}, which have no names there")
    if layout == "solo_learn" and stem in ("cifar", "small"):
        lines.append(f"  stem       3×3, {_STEMS_3X3[stem]}; solo-learn's own CIFAR stem has padding 2")
    last = heads["projector"].layers[-1] if "projector" in heads else None
    if names.last_bias and isinstance(last, nets.BatchNorm) and last.affine:
        lines.append("  projector  its output BN has γ and β. That of the program has none: make it affine "
                     "to load them")  # fmt: skip
    return "\n".join(lines)


def _stem(backbone: keras.Model) -> str:
    """The stem of one of our ResNets, by its layers."""
    layers: dict[str, Any] = {layer.name: layer for layer in backbone.layers}
    if "stem_pool" in layers or "stem_wider" in layers:
        return "imagenet" if "stem_pool" in layers else "cifar_pad2"
    return "small" if layers["stem_conv"].strides[0] == 2 else "cifar"


def _as_flags(options: dict) -> str:
    return " ".join(f"--{text}" for text in backbone_file.options_text(options).split())
