"""A folder for the Hugging Face Hub, whose weights timm reads, and torchvision where they are for colours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from simsiam_tf.data import preprocess
from simsiam_tf.model_export.card_text import method_summary, training_sections
from simsiam_tf.pretrained import backbone_file, torch_weights
from simsiam_tf.pretrained.pretrained_backbone import Pretrained
from simsiam_tf.runtime.atomic_files import atomic_write_text
from simsiam_tf.runtime.errors import UserError

WEIGHTS, CONFIG, README = CONTENT = ("model.safetensors", "config.json", "README.md")
SHARED_NAMES = ("resnet18", "resnet34", "resnet50")  # names that timm and torchvision use, too


def write_hub_folder(pretrained: Pretrained, folder: Path) -> None:
    """Writes weights, timm's configuration and a README.

    Raises:
        UserError: the network is not a ResNet that timm and torchvision have.
    """
    state = torch_weights.to_torch(pretrained.backbone)
    architecture = torch_weights.from_torch(state).architecture
    name, stem, width = (architecture[key] for key in ("name", "stem", "width"))
    if name not in SHARED_NAMES or width != 1 or stem != "imagenet":
        raise UserError(
            f"`hub`: timm and torchvision have no {name} with a {stem} stem and width {width:g}. "
            "Export it as format=keras or onnx."
        )
    folder.mkdir()
    torch_weights.write_weights(state, folder / WEIGHTS, {"source": pretrained.sha256})
    atomic_write_text(folder / CONFIG, json.dumps(_config(pretrained, name), indent=1) + "\n")
    digest = backbone_file.sha256(folder / WEIGHTS)
    atomic_write_text(folder / README, hub_readme(pretrained, name, digest))


def read_features(pretrained: Pretrained, folder: Path, images: np.ndarray) -> np.ndarray:
    """Features of uint8 images [B, H, W, C], computed in Keras with the folder's weights."""
    backbone = torch_weights.from_torch(torch_weights.open_checkpoint(folder / WEIGHTS).state).backbone
    return backbone(preprocess(tf.constant(images), pretrained.augmentation), training=False).numpy()


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


def hub_readme(pretrained: Pretrained, name: str, sha256: str) -> str:
    """The README.md: the header that the Hub reads, how to load the weights, and how they were trained."""
    method, summary = method_summary(pretrained.card)
    torchvision = f"""With torchvision:

```python
import torch, torchvision, safetensors.torch
net = torchvision.models.{name}(); net.fc = torch.nn.Identity()
net.load_state_dict(safetensors.torch.load_file("{WEIGHTS}"))
```

"""
    torchvision *= pretrained.channels == 3  # torchvision's networks take no other number
    head = f"""---
library_name: timm
pipeline_tag: image-feature-extraction
tags: [simsiam, self-supervised]
---

# {name}, {method}

{summary}

## Use

With timm, in this folder or by its name on the Hub (`hf-hub:NAME`):

```python
import timm
net = timm.create_model("local-dir:.", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net))
```

{torchvision}- SHA-256 of the weights: `{sha256}`
"""
    return head + training_sections(pretrained.card)
