"""A keras-hub preset: a folder that `keras_hub.models.Backbone.from_preset` opens without this package."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simsiam_tf.data.augment.eval_transform import SMALL
from simsiam_tf.model_export.card_text import method_summary, training_sections
from simsiam_tf.pretrained import backbone_file, keras_hub, keras_hub_presets
from simsiam_tf.pretrained.pretrained_backbone import Pretrained
from simsiam_tf.runtime.atomic_files import atomic_write_text

README = "README.md"
CONTENT = (keras_hub.WEIGHTS, keras_hub.CONFIG, "metadata.json", keras_hub_presets.CONVERTER, README)
USAGE = """import keras_hub
backbone = keras_hub.models.Backbone.from_preset({path})
prepare = keras_hub.layers.ImageConverter.from_preset({path})
features = backbone.predict(prepare(images)).mean(axis=(1, 2))"""


def write_keras_hub_folder(pretrained: Pretrained, folder: Path) -> None:
    """Has keras-hub write the files of a preset, and adds a README.

    Raises:
        UserError: keras-hub is missing, or has no such network.
    """
    network = keras_hub.to_keras_hub(pretrained.backbone)
    folder.mkdir()
    network.save_to_preset(str(folder))
    converter = keras_hub_presets.image_converter(pretrained.augmentation, pretrained.channels)
    converter.save_to_preset(str(folder))
    atomic_write_text(folder / README, _readme(pretrained, folder, network.name))


def read_features(pretrained: Pretrained, folder: Path, images: np.ndarray) -> np.ndarray:
    """Pooled features of uint8 images [B, H, W, C] by a preset, prepared as those of `pretrained`."""
    import keras_hub

    network = keras_hub.models.Backbone.from_preset(str(folder), dtype="float32")
    return np.asarray(network(pretrained.prepare(images), training=False)).mean(axis=(1, 2))


def _readme(pretrained: Pretrained, folder: Path, name: str) -> str:
    """How to load the preset, and the metadata of the training, under the header of the Hub."""
    method, summary = method_summary(pretrained.card)
    size = pretrained.augmentation.size
    cut = round(size * 256 / 224)
    resize = f"resized so that the shorter side has {cut} pixels, and cut to the middle {size} × {size}"
    cropped = f"\n- In evaluation images were {resize}; the ImageConverter takes all of the shorter side."
    return f"""---
library_name: keras-hub
pipeline_tag: image-feature-extraction
tags: [simsiam, self-supervised]
---

# {name}, {method}

{summary}

## Use

In this folder, or by its address on the Hub, as in hf://USER/NAME:

```python
{USAGE.format(path="'.'")}
```

- images: [B, H, W, {pretrained.channels}] in [0, 255]
- features: float32 [B, {pretrained.features}]{cropped * (size > SMALL)}
- `keras_hub.models.ImageClassifier.from_preset(".", num_classes=10)` trains a classifier on it.
- SHA-256 of the weights: `{backbone_file.sha256(folder / keras_hub.WEIGHTS)}`
{training_sections(pretrained.card)}"""
