"""The card of an exported model: what it takes and gives, what it learned from, how it was made."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import simsiam_tf
from simsiam_tf.assembly import versions
from simsiam_tf.config import method_of
from simsiam_tf.exporting.formats import FORMATS, Exported
from simsiam_tf.files import replace_text
from simsiam_tf.pretrained import Pretrained

KEPT = ("data", "images", "step", "accuracy", "diagnosis", "classes", "configuration", "made with")


def facts(pretrained: Pretrained, exported: Exported) -> dict[str, Any]:
    """The card as a dictionary."""
    recipe, channels = pretrained.recipe, pretrained.channels
    return {
        "file": exported.path.name, "format": exported.format, "sha256": exported.sha256,
        "input": f"uint8 [B, H, W, {channels}] in [0, 255], {'RGB' if channels == 3 else 'gray'}, any size",
        "output": f"float32 [B, {pretrained.features}]",
        "preprocessing": {
            "inside the model": True, "size": recipe.size, "mean": list(recipe.mean), "std": list(recipe.std),
        },
        "source": {"path": str(pretrained.path), "sha256": pretrained.sha256},
        "largest difference from the source": exported.difference,
        "largest feature": exported.largest,
        **{key: pretrained.card[key] for key in KEPT if key in pretrained.card},
        "exported": datetime.date.today().isoformat(),
        "exported with": {"simsiam_tf": simsiam_tf.__version__, **versions()},
    }  # fmt: skip


def write(pretrained: Pretrained, exported: Exported) -> tuple[Path, Path]:
    """Writes the card beside the model, as JSON and as Markdown; where they are."""
    card = facts(pretrained, exported)
    paths = tuple(exported.path.with_name(f"{exported.path.name}.{kind}") for kind in ("json", "md"))
    replace_text(paths[0], json.dumps(card, indent=1) + "\n")
    replace_text(paths[1], markdown(card))
    return paths


def markdown(card: dict[str, Any]) -> str:
    """The card as a page."""
    ready, off = card["preprocessing"], card["largest difference from the source"]
    lines = [
        f"# {card['file']}", "",
        learned(card),
        "", "## Use", "", "```python", FORMATS[card["format"]].usage.format(name=card["file"]), "```", "",
        f"- images: {card['input']}; those of a batch have one size",
        f"- features: {card['output']}",
        f"- preprocessing, inside the model: resized to {ready['size']} pixels, mean {ready['mean']} and std "
        f"{ready['std']} of values in [0, 1]",
        f"- largest difference of a feature from the source's: {off:.2g} (largest feature "
        f"{card['largest feature']:.2g})",
        f"- SHA-256: `{card['sha256']}`", f"- source: `{card['source']['sha256']}`",
    ]  # fmt: skip
    return "\n".join([*lines, *known(card)])


def learned(card: dict[str, Any]) -> str:
    """By which method the features were learned."""
    method = method_of(card.get("configuration", {}))
    return f"Image features learned without labels by {method.title} ({method.source}), with simsiam_tf."


def known(card: dict[str, Any]) -> list[str]:
    """What is known of the training, as sections of a page."""
    lines: list[str] = []
    if "data" in card:
        lines += ["", "## Training", "", f"- data: {card['data']}, {card.get('images', '?')} images"]
        lines += [f"- steps: {card['step']}"] if "step" in card else []
        lines += [f"- diagnosis: {card['diagnosis']}"] if "diagnosis" in card else []
    if card.get("accuracy"):
        columns = list(dict.fromkeys(k for of in card["accuracy"].values() for k in of))
        lines += ["", "## Accuracy", "", f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        for name, of in card["accuracy"].items():
            lines.append(f"| {name} | {' | '.join(f'{of[c]:.1%}' if c in of else '' for c in columns)} |")
    if "configuration" in card:
        lines += ["", "## Configuration", "", "```"]
        lines += [f"--{k}={v}" for k, v in card["configuration"].items() if v is not None]
        lines += ["```"]
    made = [f"- {k}: {v}" for key in ("made with", "exported with") for k, v in card.get(key, {}).items()]
    return [*lines, "", "## Versions", "", *dict.fromkeys(made), ""]
