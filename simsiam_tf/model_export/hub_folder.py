"""A folder for the Hugging Face Hub: the backbone for this package and, where timm knows it, for timm."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from simsiam_tf.config import is_file
from simsiam_tf.config.places import FILES
from simsiam_tf.data import preprocess
from simsiam_tf.data.augment.eval_transform import SMALL, shorter_side
from simsiam_tf.model_export.hub_card import hub_readme
from simsiam_tf.nets.whitening import finish_like
from simsiam_tf.pretrained import backbone_file, torch_weights
from simsiam_tf.pretrained.pretrained_backbone import Pretrained, open_pretrained
from simsiam_tf.runtime.atomic_files import atomic_write_text
from simsiam_tf.runtime.errors import UserError

BACKBONE, CARD, WEIGHTS, CONFIG, README = CONTENT = (
    "backbone.keras", "backbone.json", "model.safetensors", "config.json", "README.md",
)  # fmt: skip
SHARED_NAMES = ("resnet18", "resnet34", "resnet50", "resnet101")  # names that timm and torchvision use, too


def write_hub_folder(pretrained: Pretrained, folder: Path) -> None:
    """Writes the backbone with its card, a README and, for a network of timm, its weights and configuration.

    The .keras file is copied byte by byte, so that features and embeddings made with it stay valid. Where the
    file's network was pooled when it was opened, the pooled network is saved instead. The card leaves out
    paths of this machine.

    Raises:
        UserError: the file changed since it was opened.
    """
    folder.mkdir()
    if not pretrained.as_stored:
        backbone_file.save_network(pretrained.backbone, folder / BACKBONE)
        pretrained = dataclasses.replace(pretrained, sha256=backbone_file.sha256(folder / BACKBONE))
    else:
        shutil.copyfile(pretrained.path, folder / BACKBONE)
    if backbone_file.sha256(folder / BACKBONE) != pretrained.sha256:
        raise UserError(f"weights={pretrained.place}: changed while it was exported. Run the command again.")
    pretrained = dataclasses.replace(pretrained, card=published_card(pretrained))
    atomic_write_text(folder / CARD, backbone_file.card_text(pretrained.card))
    name, state = timm_network(pretrained)
    if name:
        torch_weights.write_weights(state, folder / WEIGHTS, {"source": pretrained.sha256})
        atomic_write_text(folder / CONFIG, json.dumps(_config(pretrained, name), indent=1) + "\n")
    digest = backbone_file.sha256(folder / (WEIGHTS if name else BACKBONE))
    atomic_write_text(folder / README, hub_readme(pretrained, name, digest))


def published_card(pretrained: Pretrained) -> dict[str, Any]:
    """The backbone's card without paths of this machine and without the networks beside the backbone."""
    card = {k: v for k, v in pretrained.card.items() if k not in ("networks beside", "weights")}
    configuration = backbone_file.card_entries(card, "configuration")
    if configuration:
        card["configuration"] = {
            k: v
            for k, v in configuration.items()
            if not isinstance(v, str) or not (os.path.isabs(v) or is_file(v))
        }
    imported = backbone_file.card_entries(card, "imported")
    if imported:  # of a path on this machine only the last part stays
        kind, _, name = str(imported.get("network")).partition(":")
        name = os.path.basename(name) if os.path.isabs(name) else name
        card["imported"] = {**imported, "network": f"{kind}:{name}"}
    for key in ("data", "test"):
        if isinstance(card.get(key), str):
            card[key] = re.sub(rf"\b({'|'.join(FILES)}):[^,]*/", r"\1:", card[key])
    views = json.loads(json.dumps(dataclasses.asdict(pretrained.augmentation)))
    finishing = backbone_file.card_entries(card, "finishing")
    if finishing:  # it has the size that is read, "views" that of the training
        card["finishing"] = {**finishing, "size": views["size"]}
        views["size"] = backbone_file.card_entries(card, "views").get("size", views["size"])
    return {**card, "file": BACKBONE, "sha256": pretrained.sha256, "views": views}


def timm_network(pretrained: Pretrained) -> tuple[str, dict[str, np.ndarray]]:
    """(timm's name of the network, its weights by timm's names); the name is empty where timm has none."""
    try:
        state = torch_weights.to_torch(pretrained.backbone)
        architecture = torch_weights.from_torch(state).architecture
    except UserError:  # no ResNet of this package
        return "", {}
    shared = architecture["name"] in SHARED_NAMES
    shared = shared and architecture["width"] == 1 and architecture["stem"] == "imagenet"
    return (architecture["name"], state) if shared else ("", {})


def read_features(pretrained: Pretrained, folder: Path, images: np.ndarray) -> np.ndarray:
    """Features of uint8 images [B, H, W, C] by the folder's network that differs most from the source.

    Compares the network of the .keras file and, where it was written, the network for timm, which is finished
    as the source is.
    """
    opened = open_pretrained(str(folder))
    ready = preprocess(tf.constant(images), opened.augmentation)
    source, *features = (n(ready, training=False).numpy() for n in (pretrained.backbone, opened.backbone))
    if (folder / WEIGHTS).exists():
        state = torch_weights.open_checkpoint(folder / WEIGHTS).state
        plain = torch_weights.from_torch(state).backbone
        finished = finish_like(pretrained.backbone, plain, pretrained.augmentation.size)
        features.append(finished(ready, training=False).numpy())
    return max(features, key=lambda f: np.nan_to_num(np.abs(f - source), nan=np.inf).max())


def _crop(size: int) -> dict[str, Any]:
    """How timm is to take the middle of an image, as our evaluation does: it resizes to size // crop_pct."""
    if size <= SMALL:
        return {"crop_pct": 1.0, "crop_mode": "squash"}
    short = shorter_side(size)
    exact = size / short
    return {"crop_pct": exact if size // exact == short else size / (short + 0.5), "crop_mode": "center"}


def _config(pretrained: Pretrained, name: str) -> dict[str, Any]:
    """The configuration that timm reads from the Hub."""
    augmentation, channels = pretrained.augmentation, pretrained.channels
    return {
        "architecture": name, "num_classes": 0, "num_features": pretrained.features,
        "global_pool": "avg", "model_args": {"in_chans": channels},
        "pretrained_cfg": {
            "tag": "simsiam", "fixed_input_size": False,
            "input_size": [channels, augmentation.size, augmentation.size],
            "interpolation": "bilinear", **_crop(augmentation.size),
            "mean": list(augmentation.mean), "std": list(augmentation.std),
            "num_classes": 0, "pool_size": None, "first_conv": "conv1", "classifier": "fc",
        },
    }  # fmt: skip
