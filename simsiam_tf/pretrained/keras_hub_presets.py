"""Presets of keras-hub: their download, their preprocessing of images, and conversion to a work folder."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_tf.data import AUGMENTATIONS, Augmentation
from simsiam_tf.data.augment.eval_transform import SMALL
from simsiam_tf.nets.keras_hub_backbones import import_keras_hub
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.pretrained.initial_weights import TRAIN
from simsiam_tf.pretrained.keras_hub import (
    CONFIG,
    OPTION,
    WEIGHTS,
    from_keras_hub,
    read_architecture,
    read_json,
    reason,
)
from simsiam_tf.runtime.atomic_files import check_writable
from simsiam_tf.runtime.display_text import counted, printable_text
from simsiam_tf.runtime.errors import UserError, nearest

CONVERTER = "image_converter.json"
_TASK_WEIGHTS = "task.weights.h5"  # weights of a head on the backbone
_RESIZE = {  # arguments of an ImageConverter → the values whose resize is nearest to this package's
    "interpolation": "bilinear", "antialias": True,
    "crop_to_aspect_ratio": True, "pad_to_aspect_ratio": False,
}  # fmt: skip


def convert_from_keras_hub(
    weights: str, out: Path | str, augmentation: str = "auto", image_size: int | None = None
) -> str:
    """Converts a preset's ResNet to a folder for `open_pretrained`; returns a report.

    Args:
        weights: the preset's folder; or a name or address, such as hf://USER/NAME, that keras-hub downloads.
        out: the folder; created when missing.
        augmentation: a key of `AUGMENTATIONS`, for size and normalisation; "auto": the ImageConverter's.
        image_size: side of the images in pixels; the preset's or the augmentation's when None.

    Raises:
        UserError: as `find_preset` and `from_keras_hub`; the preset does not say how it preprocesses
            images; or `out` cannot be written.
    """
    out = Path(out).expanduser()
    check_writable(out, folders=True)
    folder = find_preset(weights)
    _, channels = read_architecture(folder)
    converter = _converter(folder)
    if augmentation == "auto":
        views = _augmentation(converter, channels, image_size, folder)
    else:
        views = AUGMENTATIONS[augmentation]
        views = dataclasses.replace(views, size=image_size or views.size)
    backbone, architecture = from_keras_hub(folder)
    metadata = {
        "converted from": {"file": weights, "sha256": backbone_file.sha256(folder / WEIGHTS)},
        "layout": "keras_hub", "architecture": architecture, "views": dataclasses.asdict(views),
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    written = backbone_file.export_networks({"backbone": backbone}, out, metadata)
    resize = ", ".join(f"{key}={printable_text(str(converter[key]))}" for key in _RESIZE if key in converter)
    rule = "by the preset" if augmentation == "auto" else f"as by augmentation={augmentation}"
    lines = [
        "  layout     keras-hub's ResNetBackbone",
        f"  network    {architecture['name']}, imagenet stem, width 1, {counted(channels, 'channel')}, "
        f"{backbone.output_shape[-1]} features",
        f"  images     {views.size} pixels, normalised {rule}: mean {views.mean}, std {views.std}",
        "  resize     as torchvision's; the preset's own: " + (resize or "not said"),
        f"  left out   {_TASK_WEIGHTS}, the weights of its head" * (folder / _TASK_WEIGHTS).exists(),
        f"  written    {written}",
        f"  to train   {TRAIN} --weights={shlex.quote(str(out))}",
    ]
    return "\n".join(filter(None, lines))


def find_preset(weights: str) -> Path:
    """The folder of a preset; keras-hub downloads one that is a name or an address.

    Raises:
        UserError: no such folder or preset, or no download.
    """
    folder = Path(weights).expanduser()
    if folder.is_dir():
        return folder
    presets: Any = import_keras_hub(OPTION).models.ResNetBackbone.presets
    if weights not in presets and "://" not in weights:
        raise UserError(
            f"weights={weights}: no such folder, and no ResNet of keras-hub has this name."
            f"{nearest(weights, presets)}"
        )
    from keras_hub.src.utils.preset_utils import get_file

    with contextlib.suppress(ImportError):
        from huggingface_hub.utils import logging

        logging.set_verbosity_error()  # it prints a line for each attempt
    try:
        config, _ = (Path(get_file(weights, name)) for name in (CONFIG, WEIGHTS))
    except Exception as error:  # noqa: BLE001 - each service has exceptions of its own
        raise UserError(
            f"weights={weights}: keras-hub could not download it ({reason(error)}). Download the preset "
            "where there is a network, and pass its folder."
        ) from error
    with contextlib.suppress(Exception):  # a preset may have no ImageConverter; `_augmentation` then raises
        get_file(weights, CONVERTER)
    return config.parent


def image_converter(augmentation: Augmentation, channels: int) -> Any:
    """keras-hub's ImageConverter that is nearest to `evaluation_view` and `normalise` of an augmentation.

    Images [B, H, W, C] in [0, 255] → [B, size, size, C]. Up to size 64 the results differ only because
    `evaluation_view` rounds to whole levels. Above it the ImageConverter crops to the whole of the shorter
    side, `evaluation_view` to 224/256 of it, which keras-hub cannot express.
    """
    size, (mean, std) = augmentation.size, map(np.array, augmentation.statistics(channels))
    resize: dict[str, Any] = _RESIZE | {"crop_to_aspect_ratio": size > SMALL}
    return import_keras_hub(OPTION).layers.ResNetImageConverter(
        image_size=(size, size), scale=(1 / (255 * std)).tolist(), offset=(-mean / std).tolist(),
        name="image_converter", dtype="float32", **resize,
    )  # fmt: skip


def _converter(folder: Path) -> dict[str, Any]:
    """The configuration of a preset's ImageConverter; empty where it has none."""
    if not (folder / CONVERTER).exists():
        return {}
    return backbone_file.card_entries(read_json(folder / CONVERTER), "config")


def _augmentation(converter: dict, channels: int, image_size: int | None, folder: Path) -> Augmentation:
    """The ImageNet augmentation with the size and normalisation of a preset.

    The preset's x · scale + offset is our (x / 255 − mean) / std.
    """

    def numbers(key: str, default: float) -> np.ndarray:
        value = converter.get(key)
        listed = [default] if value is None else value if isinstance(value, list) else [value]
        if len(listed) not in (1, channels) or not all(type(v) in (int, float) for v in listed):
            raise ValueError(f"{key}={value}")
        return np.broadcast_to(np.array(listed, float), (channels,))

    try:
        sides = converter["image_size"] if image_size is None else [image_size] * 2
        if (
            type(sides) is not list
            or [*map(type, sides)] != [int, int]
            or sides[0] != sides[1]
            or sides[0] < 4
        ):
            raise ValueError(f"image_size={sides}")
        scale, offset = numbers("scale", 1.0), numbers("offset", 0.0)
        std = 1 / (255 * scale)
        mean = -offset * std
        if not (np.isfinite([mean, std]).all() and (std > 0).all()):
            raise ValueError(f"scale={converter.get('scale')}")
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        problem = f"does not say how ({reason(error)})" if converter else "is missing"
        raise UserError(
            f"weights={folder}: images cannot be preprocessed as for the preset: its {CONVERTER} {problem}. "
            "Pass `augmentation`, such as augmentation=imagenet, and `image_size`."
        ) from error
    rule = (tuple(float(f"{v:.9g}") for v in values) for values in (mean, std))  # the division's last digit
    return dataclasses.replace(
        AUGMENTATIONS["imagenet"], size=sides[0], **dict(zip(("mean", "std"), rule, strict=True))
    )
