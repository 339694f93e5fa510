"""Exports a backbone as a folder for the Hugging Face Hub, which timm and torchvision read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from simsiam_tf.model_export import formats, model_card
from simsiam_tf.model_export.formats import ExportedModel
from simsiam_tf.pretrained import torch_weights
from simsiam_tf.pretrained.pretrained_backbone import Pretrained
from simsiam_tf.runtime.atomic_files import atomic_write_text, check_writable, remove_path
from simsiam_tf.runtime.errors import UserError

WEIGHTS = "model.safetensors"
SHARED_NAMES = ("resnet18", "resnet34", "resnet50")  # names that timm and torchvision use, too


def write_hub_folder(pretrained: Pretrained, folder: Path | str, overwrite: bool = False) -> ExportedModel:
    """Writes model.safetensors, config.json and README.md; the weights are read back and compared.

    Args:
        pretrained: a ResNet-18, -34 or -50 of width 1 with the ImageNet stem.
        folder: created when missing.
        overwrite: replace an earlier export.

    Raises:
        UserError: a network that timm and torchvision do not have, safetensors missing, or a folder that
            holds something else or cannot be written.
    """
    folder = Path(folder).expanduser()
    check_hub_folder(folder, overwrite)
    state = torch_weights.to_torch(pretrained.backbone)
    architecture = torch_weights.from_torch(state).architecture
    name, stem, width = (architecture[key] for key in ("name", "stem", "width"))
    if name not in SHARED_NAMES or width != 1 or stem != "imagenet":
        raise UserError(
            f"`hub`: timm and torchvision have no {name} with a {stem} stem and width {width:g}. "
            "Export it as format=keras or onnx."
        )
    new = folder.with_name(f".writing-{folder.name}")
    remove_path(new)
    try:
        new.mkdir(parents=True)
        torch_weights.write_weights(state, new / WEIGHTS, {"source": pretrained.sha256})
        reread = torch_weights.from_torch(torch_weights.open_checkpoint(new / WEIGHTS).state).backbone
        difference, largest = formats.compare_features(
            pretrained, lambda images: formats.source_features(pretrained, reread, images)
        )
        digest = formats.content_digest(new / WEIGHTS)
        exported = ExportedModel(folder, "hub", digest, difference, largest)
        config = _config(pretrained, name)
        atomic_write_text(new / "config.json", json.dumps(config, indent=1) + "\n")
        atomic_write_text(new / "README.md", _readme(pretrained, exported, name))
        remove_path(folder)
        new.replace(folder)
    except OSError as error:
        raise UserError(f"out={folder}: cannot be written ({error.strerror or error}).") from error
    finally:
        remove_path(new)
    return exported


def check_hub_folder(folder: Path, overwrite: bool = False) -> None:
    """Raises UserError if `write_hub_folder` could not write the folder. Call it before any long work."""
    torch_weights.require_library("safetensors", folder / WEIGHTS)
    check_writable(folder, folders=True)
    ours = {WEIGHTS, "config.json", "README.md"}
    existing = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if existing - ours or (folder.exists() and not folder.is_dir()):
        raise UserError(f"out={folder}: has something else in it. Choose another.")
    if existing and not overwrite:
        raise UserError(f"out={folder}: exists. Choose another, or pass `overwrite`.")


def _config(pretrained: Pretrained, name: str) -> dict[str, Any]:
    """The configuration that timm reads from the Hub."""
    augmentation, channels = pretrained.augmentation, pretrained.channels
    return {
        "architecture": name, "num_classes": 0, "num_features": pretrained.features,
        "global_pool": "avg", "model_args": {"in_chans": channels},
        "pretrained_cfg": {
            "tag": "simsiam", "fixed_input_size": False,
            "input_size": [channels, augmentation.size, augmentation.size],
            "interpolation": "bilinear", "crop_pct": 224 / 256, "crop_mode": "center",
            "mean": list(augmentation.mean), "std": list(augmentation.std),
            "num_classes": 0, "pool_size": None, "first_conv": "conv1", "classifier": "fc",
        },
    }  # fmt: skip


def _readme(pretrained: Pretrained, exported: ExportedModel, name: str) -> str:
    """The Hub's README.md: its header, how to load the weights, and the metadata of the training."""
    lines = [
        "---", "library_name: timm", "pipeline_tag: image-feature-extraction",
        "tags: [simsiam, self-supervised]", "---", "",
        f"# {name}, {model_card.method_of_card(pretrained.card).title}", "",
        model_card.summary(pretrained.card),
        "", "## Use", "", "With timm, in this folder or by its name on the Hub (`hf-hub:NAME`):", "",
        "```python", "import timm",
        'net = timm.create_model("local-dir:.", pretrained=True).eval()',
        "ready = timm.data.create_transform(**timm.data.resolve_model_data_config(net))", "```", "",
        "With torchvision:", "", "```python", "import torch, torchvision, safetensors.torch",
        f"net = torchvision.models.{name}(); net.fc = torch.nn.Identity()",
        f'net.load_state_dict(safetensors.torch.load_file("{WEIGHTS}"))', "```", "",
        f"- SHA-256 of the weights: `{exported.sha256}`",
    ]  # fmt: skip
    card = model_card.card_metadata(pretrained, exported)
    return "\n".join([*lines, *model_card.training_sections(card)])
