"""The model card of an exported file: its input, output and training, and the versions that made it."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import simsiam_tf
from simsiam_tf.model_export.card_text import escape_markdown, method_summary, training_sections
from simsiam_tf.model_export.formats import COMPARED_IMAGES, FORMATS, ExportedModel
from simsiam_tf.pretrained.pretrained_backbone import Pretrained
from simsiam_tf.runtime.atomic_files import atomic_write_text
from simsiam_tf.runtime.display_text import counted
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.runtime.versions import library_versions

# Keys of the backbone's card that the model card repeats.
FROM_SOURCE = ("data", "images", "step", "accuracy", "diagnosis", "classes", "finishing", "configuration",
               "made with")  # fmt: skip


def write_model_card(pretrained: Pretrained, exported: ExportedModel) -> Path:
    """Writes the card beside the model, as JSON and as Markdown; returns the path of the Markdown.

    Raises:
        UserError: the card cannot be written.
    """
    card = card_metadata(pretrained, exported)
    data, page = (exported.path.with_name(f"{exported.path.name}.{suffix}") for suffix in ("json", "md"))
    try:
        atomic_write_text(data, json.dumps(card, indent=1) + "\n")
        atomic_write_text(page, card_page(card))
    except OSError as error:
        raise UserError(f"{data}: the card cannot be written ({error.strerror or error}).") from error
    return page


def card_metadata(pretrained: Pretrained, exported: ExportedModel) -> dict[str, Any]:
    """The card as a dictionary."""
    augmentation, channels = pretrained.augmentation, pretrained.channels
    colours = {1: "gray", 3: "RGB"}.get(channels, counted(channels, "channel"))
    return {
        "file": exported.path.name, "format": exported.format, "sha256": exported.sha256,
        "input": f"uint8 [B, H, W, {channels}] in [0, 255], {colours}, any size",
        "output": f"float32 [B, {pretrained.features}]",
        "preprocessing": {
            "inside the model": True, "size": augmentation.size,
            "mean": list(augmentation.mean), "std": list(augmentation.std),
        },
        "source": {"path": pretrained.place, "sha256": pretrained.sha256},
        "largest difference from the source": exported.difference,
        "largest feature": exported.largest,
        **{key: pretrained.card[key] for key in FROM_SOURCE if key in pretrained.card},
        "exported": datetime.date.today().isoformat(),
        "exported with": {"simsiam_tf": simsiam_tf.__version__, **library_versions()},
    }  # fmt: skip


def card_page(card: dict[str, Any]) -> str:
    """The card in Markdown."""
    preprocessing, difference = card["preprocessing"], card["largest difference from the source"]
    return f"""# {escape_markdown(card["file"])}

{method_summary(card)[1]}

## Use

```python
{FORMATS[card["format"]].usage.format(path=repr(card["file"]))}
```

- images: {card["input"]}; all images of a batch have the same size
- features: {card["output"]}
- preprocessing, inside the model: resized and, above 64 pixels, cropped to {preprocessing["size"]} pixels, \
mean {preprocessing["mean"]} and std {preprocessing["std"]} of values in [0, 1]
- largest difference of a feature from the source's: {difference:.2g} (largest feature \
{card["largest feature"]:.2g}; {COMPARED_IMAGES})
- SHA-256: `{card["sha256"]}`
- SHA-256 of the source: `{card["source"]["sha256"]}`
{training_sections(card)}"""
