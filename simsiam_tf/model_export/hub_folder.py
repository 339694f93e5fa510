"""A backbone as a folder for the Hugging Face Hub, which timm and torchvision read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf.model_export import formats, model_card
from simsiam_tf.model_export.formats import Exported
from simsiam_tf.pretrained import torch_weights
from simsiam_tf.pretrained.pretrained_backbone import Pretrained
from simsiam_tf.runtime.atomic_files import atomic_write_text, check_writable
from simsiam_tf.runtime.errors import UserError

WEIGHTS = "model.safetensors"
KNOWN = ("resnet18", "resnet34", "resnet50")  # under these names to timm and torchvision


def write(pretrained: Pretrained, folder: Path | str, overwrite: bool = False) -> Exported:
    """Writes model.safetensors, config.json and README.md; the weights are read back and compared.

    Args:
        pretrained: a ResNet-18, -34 or -50 of width 1 with the ImageNet stem.
        folder: made when missing.
        overwrite: replace what is there.

    Raises:
        UserError: a network that timm and torchvision do not have, safetensors missing, or a folder that
            is taken or cannot be written.
    """
    folder = Path(folder).expanduser()
    check(folder, overwrite)
    state = torch_weights.to_torch(pretrained.backbone)
    found = torch_weights.from_torch(state)
    known = found.architecture
    if known["name"] not in KNOWN or known["width"] != 1 or known["stem"] != "imagenet":
        raise UserError(
            f"`hub`: timm and torchvision have no {known['name']} with a {known['stem']} stem and width "
            f"{known['width']:g}. Export it as format=keras or onnx."
        )
    made = folder.with_name(f".writing-{folder.name}")
    shutil.rmtree(made, ignore_errors=True)
    try:
        made.mkdir(parents=True)
        torch_weights.write(state, made / WEIGHTS, {"source": pretrained.sha256})
        back = torch_weights.from_torch(torch_weights.read(made / WEIGHTS)).backbone
        difference, largest = formats.compared(pretrained, _from_raw(pretrained, back))
        exported = Exported(folder, "hub", formats.digest(made / WEIGHTS), difference, largest)
        config = _config(pretrained, known)
        atomic_write_text(made / "config.json", json.dumps(config, indent=1) + "\n")
        atomic_write_text(made / "README.md", _card(pretrained, exported, known["name"]))
        shutil.rmtree(folder, ignore_errors=True)
        made.replace(folder)
    except OSError as error:
        raise UserError(f"out={folder}: cannot be written ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return exported


def check(folder: Path, overwrite: bool = False) -> None:
    """Raises UserError for a folder that `write` could not have, before any long work."""
    torch_weights.needs("safetensors", folder / WEIGHTS)
    check_writable(folder, folders=True)
    ours = {WEIGHTS, "config.json", "README.md"}
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if there - ours or (folder.exists() and not folder.is_dir()):
        raise UserError(f"out={folder}: has something else in it. Choose another.")
    if there and not overwrite:
        raise UserError(f"out={folder}: exists. Choose another, or pass `overwrite`.")


def _from_raw(pretrained: Pretrained, backbone: keras.Model) -> formats.Run:
    """Images → features by other weights, made ready as ever."""
    views = pretrained.views

    def run(images: np.ndarray) -> np.ndarray:
        ready = tf.stack([views.normalise(views.centre(tf.constant(image))) for image in images])
        return backbone(ready, training=False).numpy()

    return run


def _config(pretrained: Pretrained, architecture: dict[str, object]) -> dict[str, Any]:
    """What timm reads, under the Hub's name for it."""
    augmentation, channels = pretrained.augmentation, pretrained.channels
    return {
        "architecture": architecture["name"], "num_classes": 0, "num_features": pretrained.features,
        "global_pool": "avg", "model_args": {"in_chans": channels},
        "pretrained_cfg": {
            "tag": "simsiam", "fixed_input_size": False,
            "input_size": [channels, augmentation.size, augmentation.size],
            "interpolation": "bilinear", "crop_pct": 224 / 256, "crop_mode": "center",
            "mean": list(augmentation.mean), "std": list(augmentation.std),
            "num_classes": 0, "pool_size": None, "first_conv": "conv1", "classifier": "fc",
        },
    }  # fmt: skip


def _card(pretrained: Pretrained, exported: Exported, name: str) -> str:
    """The Hub's README.md: its header, how to load, and what is known of the training."""
    lines = [
        "---", "library_name: timm", "pipeline_tag: image-feature-extraction",
        "tags: [simsiam, self-supervised]", "---", "",
        f"# {name}, {model_card.method(pretrained.card).title}", "",
        model_card.learned(pretrained.card),
        "", "## Use", "", "With timm, in this folder or by its name on the Hub (`hf-hub:NAME`):", "",
        "```python", "import timm",
        'net = timm.create_model("local-dir:.", pretrained=True).eval()',
        "ready = timm.data.create_transform(**timm.data.resolve_model_data_config(net))", "```", "",
        "With torchvision:", "", "```python", "import torch, torchvision, safetensors.torch",
        f"net = torchvision.models.{name}(); net.fc = torch.nn.Identity()",
        f'net.load_state_dict(safetensors.torch.load_file("{WEIGHTS}"))', "```", "",
        f"- SHA-256 of the weights: `{exported.sha256}`",
    ]  # fmt: skip
    return "\n".join([*lines, *model_card.known(model_card.facts(pretrained, exported))])
