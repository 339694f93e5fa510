"""The README of a folder for the Hub: a header in YAML, which huggingface_hub writes, and Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simsiam_tf.config import is_file
from simsiam_tf.evaluate.verdict import MEASURES
from simsiam_tf.model_export.card_text import escape_markdown, learned, method_summary, training_sections
from simsiam_tf.nets.whitening import whitening_layer
from simsiam_tf.pretrained import hub
from simsiam_tf.pretrained.backbone_file import card_entries
from simsiam_tf.pretrained.pretrained_backbone import Pretrained
from simsiam_tf.runtime.display_text import one_line

# Entries of a card's "accuracy" that the README has, and their titles; baselines are left out.
TRAINED = {"backbone": "kNN accuracy", "classifier": "accuracy of a classifier"}
_SET_NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?", re.ASCII)  # what the Hub takes for a set's name


def hub_readme(pretrained: Pretrained, name: str, sha256: str) -> str:
    """The Hub's README.md: its header, how to load the weights, and the metadata of the training.

    name: the network's name in timm and torchvision; "" where they have none. sha256: digest of the weights.

    Raises:
        ValueError: huggingface_hub reads another header back than it wrote.
    """
    import huggingface_hub

    method, summary = method_summary(pretrained.card)
    network = name or pretrained.backbone.name
    page = f"""
# {escape_markdown(network)}, {method}

{summary}

## Use

{_with_timm(name, pretrained) if name else ""}{_with_simsiam_tf(pretrained)}
- SHA-256 of the weights: `{sha256}`
{training_sections(pretrained.card)}"""
    header = card_header(pretrained.card, "timm" if name else "keras", one_line(network))
    text = f"---\n{header.to_yaml()}\n---\n{page}"
    if huggingface_hub.ModelCard(text).data.to_dict() != header.to_dict():
        raise ValueError("the header of README.md is not read back as it was written")
    return text


def card_header(card: Mapping[str, Any], library: str, name: str) -> Any:
    """The metadata of a model card on the Hub, as `huggingface_hub.ModelCardData`.

    card: the backbone's card; entries in another form than this package writes are left out. library: "timm"
    or "keras". name: the network's name.
    """
    import huggingface_hub

    data = public_data(card)
    values = {
        "library_name": library, "pipeline_tag": "image-feature-extraction",
        "tags": ["simsiam", "self-supervised"] if learned(card) else ["image-features"],
        "datasets": [data] if data and learned(card) else None,
    }  # fmt: skip
    license = card.get("license")
    if isinstance(license, str) and hub.LICENSE.fullmatch(license):
        values["license"] = license
    metrics = {
        f"{TRAINED[model]}, {metric}": float(value)
        for model in TRAINED
        for metric, value in card_entries(card_entries(card, "accuracy"), model).items()
        if re.fullmatch(r"\w+", metric, re.ASCII)
        and (metric not in MEASURES or MEASURES[metric].by_labels)
        and isinstance(value, int | float)
        and 0 <= value <= 1
    }
    if metrics:
        values |= {"model_name": name, "eval_results": [
            huggingface_hub.EvalResult(
                task_type="image-classification", dataset_type=data or "images",
                dataset_name=data or "unpublished images",
                metric_type="accuracy", metric_name=metric, metric_value=value,
            )
            for metric, value in metrics.items()
        ]}  # fmt: skip
    return huggingface_hub.ModelCardData(**values)


def public_data(card: Mapping[str, Any]) -> str | None:
    """The name of the published set on which a backbone was trained; None where it is not a published set."""
    data = card_entries(card, "configuration").get("data")
    if not isinstance(data, str) or is_file(data):
        return None
    kind, _, rest = data.partition(":")
    name = rest.partition(":")[0] if kind in ("hf", "tfds") else kind
    return name if _SET_NAME.fullmatch(name) and not Path(name).is_dir() else None


def _with_timm(name: str, pretrained: Pretrained) -> str:
    torchvision = f"""With torchvision:

```python
import torch, torchvision, safetensors.torch
net = torchvision.models.{name}(); net.fc = torch.nn.Identity()
net.load_state_dict(safetensors.torch.load_file("model.safetensors"))
```

"""
    torchvision *= pretrained.channels == 3  # its networks take no others
    whitening = "These give pooled features, before the last layers of `backbone.keras`, which whiten.\n\n"
    whitening *= whitening_layer(pretrained.backbone) is not None
    return f"""With timm, in this folder or by its name on the Hub (`hf-hub:NAME`):

```python
import timm
net = timm.create_model("local-dir:.", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net))
```

{torchvision}{whitening}"""


def _with_simsiam_tf(pretrained: Pretrained) -> str:
    augmentation = pretrained.augmentation
    return f"""With simsiam_tf, in this folder or by its name on the Hub (`hf://USER/NAME`):

```python
import simsiam_tf as ss
net = ss.from_pretrained(".")
features = net.backbone(ss.data.preprocess(images, net.augmentation))
```

- images: uint8 [B, H, W, {pretrained.channels}] of any size; features: float32 [B, {pretrained.features}]
- `backbone.keras` holds stock Keras layers: `keras.saving.load_model` opens it anywhere. It takes images of \
{augmentation.size} pixels, in [0, 1], less the mean {list(augmentation.mean)}, \
divided by {list(augmentation.std)}.
"""
