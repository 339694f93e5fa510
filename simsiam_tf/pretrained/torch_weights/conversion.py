"""Converts a file of PyTorch weights to a work folder and back, and describes what it did."""

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
from simsiam_tf.pretrained.initial_weights import TRAIN
from simsiam_tf.pretrained.torch_layouts import LAYOUTS, READ_ONLY, strip_wrappers
from simsiam_tf.pretrained.torch_weights import (
    backbone_layout,
    published_layouts,
    torch_files,
    training_state,
)
from simsiam_tf.pretrained.torch_weights.published_layouts import PUBLISHED
from simsiam_tf.runtime.atomic_files import check_writable
from simsiam_tf.runtime.display_text import counted, printable_text
from simsiam_tf.runtime.errors import UserError

_STEMS_3X3 = {
    "cifar": "stride 1, padding 1", "cifar_pad2": "stride 1, padding 2, as solo-learn's", "small": "stride 2",
}  # fmt: skip


def convert_from_torch(
    path: str,
    out: Path | str,
    layout: str = "auto",
    stem: str = "auto",
    augmentation: str = "auto",
    image_size: int | None = None,
    prefix: str | None = None,
) -> str:
    """Converts a file of PyTorch weights to a folder for `open_pretrained`; returns a report.

    Args:
        path: the file.
        out: the folder; created when missing.
        layout, stem, prefix: as for `from_torch`. A file that this package wrote names its stem, which
            stem="auto" takes.
        augmentation: a key of `AUGMENTATIONS`, whose size and normalisation the backbone expects; "auto"
            chooses by stem and channels.
        image_size: side of the images in pixels; the augmentation's when None.

    Raises:
        UserError: as `open_checkpoint` and `from_torch`; or the folder cannot be written.
    """
    folder = Path(out).expanduser()
    check_writable(folder, folders=True)
    checkpoint = torch_files.open_checkpoint(path)
    if layout == "auto" and (published := published_layouts.find_layout(_stripped(checkpoint.state))):
        for option, value in (("stem", stem), ("prefix", prefix)):
            if value not in ("auto", None):
                raise UserError(f"{option}={value}: is for ResNets, and {path} has none. Leave it out.")
        return _convert_published(
            _stripped(checkpoint.state), published, path, folder, augmentation, image_size
        )
    if stem == "auto" and checkpoint.metadata.get("stem") in nets.STEMS:
        stem = checkpoint.metadata["stem"]
    converted = backbone_layout.from_torch(checkpoint.state, layout, stem, path, prefix)
    architecture = converted.architecture
    if augmentation == "auto":
        by_stem = "imagenet" if architecture["stem"] == "imagenet" else "cifar"
        augmentation = "grayscale" if architecture["channels"] == 1 else by_stem
    views = AUGMENTATIONS[augmentation]
    views = dataclasses.replace(views, size=image_size or views.size)
    metadata = {
        "converted from": {"file": Path(path).name, "sha256": backbone_file.sha256(Path(path).expanduser())},
        "layout": converted.program, "architecture": architecture, "heads": converted.options,
        "epoch": checkpoint.epoch, "left out": list(converted.left_out), "views": dataclasses.asdict(views),
    }  # fmt: skip
    momentum = training_state.momentum_networks(checkpoint, converted)
    folder.mkdir(parents=True, exist_ok=True)
    written = backbone_file.export_networks({**converted.networks, **momentum}, folder, metadata)
    lines = [
        *_report(converted),
        f"  images     {views.size} pixels, normalised as by augmentation={augmentation}",
        f"  written    {written}",
    ]  # fmt: skip
    if "predictor" in converted.heads and checkpoint.epoch is not None:
        words = f"{'with' if momentum else 'without'} the optimizer's momentum"
        known, rate = training_state.known_options(checkpoint, converted.program)
        options = {key: architecture[key] for key in ("stem", "width")} | converted.options | known
        lines += [
            f"  epoch      {checkpoint.epoch}, {words}",
            *([f"  rate       {rate}"] if rate else []),
            "  to go on   with the epochs and learning rates of the whole training:",
            "             python -m simsiam_tf.pretrain --data=… --epochs=… --batch_size=… --base_lr=… "
            f"--weights={shlex.quote(str(folder))} --start_epoch={checkpoint.epoch} "
            f"--backbone={architecture['name']} {_as_flags(options)}",
        ]
    else:
        heads = " --weights_heads=false" if converted.heads else ""
        lines.append(f"  to train   {TRAIN} --weights={shlex.quote(str(folder))}{heads}")
    return "\n".join(lines)


def _convert_published(
    state: dict[str, np.ndarray],
    layout: str,
    path: str,
    folder: Path,
    augmentation: str,
    image_size: int | None,
) -> str:
    """Converts a network of the layout PUBLISHED[layout]; returns a report."""
    row = PUBLISHED[layout]
    backbone, left_out = published_layouts.read_published(state, layout, path)
    digest = backbone_file.sha256(Path(path).expanduser())
    known = row.files.get(digest)
    views = AUGMENTATIONS["imagenet" if augmentation == "auto" else augmentation]
    if augmentation == "auto":
        size = known.size if known else row.size
        views = dataclasses.replace(views, size=size, mean=row.mean, std=row.std)
    views = dataclasses.replace(views, size=image_size or views.size)
    metadata = {
        "converted from": {"file": Path(path).name, "sha256": digest}, "layout": layout,
        "left out": list(left_out), "views": dataclasses.asdict(views),
        **({"license": known.licence} if known else {}),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    written = backbone_file.export_networks({"backbone": backbone}, folder, metadata)
    place = shlex.quote(f"file:{folder}+weights")
    mean, std = (", ".join(f"{v:.4g}" for v in values) for values in (views.mean, views.std))
    lines = [
        f"  layout     {row.title}",
        f"  network    {backbone.count_params():,} weights, {counted(backbone.input_shape[-1], 'channel')}, "
        f"{backbone.output_shape[-1]} features",
        f"  left out   {backbone_layout.group_names(left_out)}" * bool(left_out),
        f"  images     {views.size} pixels in [0, 1], less the mean {mean}, divided by {std}",
        f"  licence    {metadata.get('license', 'unknown: the file is not one that is known here')}",
        f"  written    {written}",
        f"  to train   {TRAIN} --backbone={place}",
    ]
    return "\n".join(filter(None, lines))


def _stripped(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state_dict without the wrappers of parallel and compiled training in its names."""
    return {strip_wrappers(name): array for name, array in state.items()}


def _report(converted: backbone_layout.Converted) -> list[str]:
    """The lines of a report: the program, the networks of the file, and what is left out."""
    architecture, program = converted.architecture, converted.program
    stem, width, channels = (architecture[key] for key in ("stem", "width", "channels"))
    lines = [f"  layout     {LAYOUTS[program].title if program in LAYOUTS else READ_ONLY[program][0]}"]
    if converted.other_prefixes:
        others = ", ".join(other.rstrip(".") or '""' for other in converted.other_prefixes)
        taken = converted.prefix.rstrip(".") or "the outermost network"
        lines.append(printable_text(f"  taken      {taken}; `prefix` can choose another: {others}"))
    lines.append(
        f"  network    {architecture['name']}, {stem} stem, width {width:g}, {counted(channels, 'channel')}, "
        f"{converted.backbone.output_shape[-1]} features"
    )
    if stem in _STEMS_3X3:
        doubt = "; assumed, since weights do not show it: pass `stem` if it is wrong"
        lines.append(f"  stem       3×3, {_STEMS_3X3[stem]}{'' if converted.stem_known else doubt}")
    if converted.options:
        heads, options = " and ".join(converted.heads), _as_flags(converted.options)
        lines.append(f"  d          {converted.options['d']}; {heads}: {options}")
    if converted.left_out:
        lines.append(f"  left out   {backbone_layout.group_names(converted.left_out)}")
    return lines


def _as_flags(options: dict[str, Any]) -> str:
    return " ".join(f"--{name}={value}".lower() for name, value in options.items())


def convert_to_torch(weights: str, out: Path | str, layout: str = "auto") -> str:
    """Writes a run's networks to a file of PyTorch weights; returns a report.

    Heads are written with the backbone where the folder has them and the layout has names for them.

    Args:
        weights: a finished work folder, a .keras file or an address on the Hub.
        out: file that ends in .safetensors, .pth or .pt.
        layout: program whose names the file gets, a key of `LAYOUTS`; "auto": torchvision's.

    Raises:
        UserError: as `load_backbone`, `to_torch` and `write_weights`.
    """
    layout = "torchvision" if layout == "auto" else layout
    names = LAYOUTS[layout]
    check_writable(Path(out).expanduser(), folders=True)
    backbone, card = backbone_file.load_backbone(weights), backbone_file.read_card(weights)
    loaded = {name: backbone_file.load_beside(weights, name) for name in backbone_file.HEADS}
    loaded = {name: head for name, head in loaded.items() if head is not None}
    heads = loaded if names.projector else {}
    state, stem = backbone_layout.to_torch(backbone, layout, heads), stem_of(backbone)
    metadata = {
        "data": card.get("data"), "views": card.get("views"), "stem": stem,
        "source": backbone_file.sha256(backbone_file.backbone_path(weights)),
    }  # fmt: skip
    envelope = None
    if names.prefix:  # checkpoints of whole models are dictionaries
        arch = backbone_layout.architecture_of(backbone_layout.to_torch(backbone), weights)["name"]
        arch += "_2" if arch.startswith("wide_") else ""  # torchvision's name
        envelope = {"arch": arch, "epoch": _epochs_done(card), torch_files.METADATA_KEY: json.dumps(metadata)}
    path = torch_files.write_weights(state, out, metadata, envelope)
    lines = [f"{path}: {', '.join(['backbone', *heads])}: {len(state)} arrays, named as in {names.title}"]
    if loaded and not heads:
        lines.append(f"  left out   {', '.join(loaded)}, which have no names in this layout")
    if "finishing" in card:
        lines.append("  left out   the whitening of the features")
    if layout == "solo_learn" and stem in ("cifar", "small"):
        lines.append(f"  stem       3×3, {_STEMS_3X3[stem]}; solo-learn's own CIFAR stem has padding 2")
    last = heads["projector"].layers[-1] if "projector" in heads else None
    if names.last_bias and isinstance(last, nets.BatchNorm) and last.affine:
        lines.append("  projector  its output BN has γ and β, the program's has none: make the program's BN "
                     "affine to load them")  # fmt: skip
    return "\n".join(lines)


def _epochs_done(card: Mapping[str, Any]) -> int:
    """The epochs that the networks were trained, by the card; 0 where it does not say."""
    for epoch in (card.get("epoch"), backbone_file.card_entries(card, "configuration").get("epochs")):
        if isinstance(epoch, int | float) and not isinstance(epoch, bool) and 0 <= epoch < 2**31:
            return int(epoch)
    return 0


def stem_of(backbone: keras.Model) -> str:
    """The stem of a `nets.resnet`, by its layers."""
    layers: dict[str, Any] = {layer.name: layer for layer in backbone.layers}
    if "stem_pool" in layers or "stem_wider" in layers:
        return "imagenet" if "stem_pool" in layers else "cifar_pad2"
    return "small" if layers["stem_conv"].strides[0] == 2 else "cifar"
