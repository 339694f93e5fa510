"""The card of an exported model: what it takes and gives, what it learned from, how it was made."""

from __future__ import annotations

import datetime
import html
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import simsiam_tf
from simsiam_tf.config import method_of
from simsiam_tf.config.methods import Method
from simsiam_tf.model_export.formats import FORMATS, Exported
from simsiam_tf.pretrained.pretrained_backbone import Pretrained
from simsiam_tf.runtime.atomic_files import atomic_write_text
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.runtime.versions import library_versions

KEPT = ("data", "images", "step", "accuracy", "diagnosis", "classes", "configuration", "made with")


def facts(pretrained: Pretrained, exported: Exported) -> dict[str, Any]:
    """The card as a dictionary."""
    augmentation, channels = pretrained.augmentation, pretrained.channels
    return {
        "file": exported.path.name, "format": exported.format, "sha256": exported.sha256,
        "input": f"uint8 [B, H, W, {channels}] in [0, 255], {'RGB' if channels == 3 else 'gray'}, any size",
        "output": f"float32 [B, {pretrained.features}]",
        "preprocessing": {
            "inside the model": True, "size": augmentation.size,
            "mean": list(augmentation.mean), "std": list(augmentation.std),
        },
        "source": {"path": str(pretrained.path), "sha256": pretrained.sha256},
        "largest difference from the source": exported.difference,
        "largest feature": exported.largest,
        **{key: pretrained.card[key] for key in KEPT if key in pretrained.card},
        "exported": datetime.date.today().isoformat(),
        "exported with": {"simsiam_tf": simsiam_tf.__version__, **library_versions()},
    }  # fmt: skip


def write(pretrained: Pretrained, exported: Exported) -> tuple[Path, Path]:
    """Writes the card beside the model, as JSON and as Markdown; where they are."""
    card = facts(pretrained, exported)
    paths = tuple(exported.path.with_name(f"{exported.path.name}.{kind}") for kind in ("json", "md"))
    try:
        atomic_write_text(paths[0], json.dumps(card, indent=1) + "\n")
        atomic_write_text(paths[1], markdown(card))
    except OSError as error:
        raise UserError(f"{paths[0]}: the card cannot be written ({error.strerror or error}).") from error
    return paths


def markdown(card: dict[str, Any]) -> str:
    """The card as a page."""
    ready, off = card["preprocessing"], card["largest difference from the source"]
    name = json.dumps(card["file"])[1:-1]
    lines = [
        f"# {inline(card['file'])}", "",
        learned(card),
        "", "## Use", "", *fenced([FORMATS[card["format"]].usage.format(name=name)], "python"), "",
        f"- images: {card['input']}; those of a batch have one size",
        f"- features: {card['output']}",
        f"- preprocessing, inside the model: resized to {ready['size']} pixels, mean {ready['mean']} and std "
        f"{ready['std']} of values in [0, 1]",
        f"- largest difference of a feature from the source's: {off:.2g} (largest feature "
        f"{card['largest feature']:.2g})",
        f"- SHA-256: `{card['sha256']}`", f"- source: `{card['source']['sha256']}`",
    ]  # fmt: skip
    return "\n".join([*lines, *known(card)])


def method(card: Mapping[str, Any]) -> Method:
    """The method that a card names."""
    return method_of(_table(card, "configuration"))


def learned(card: Mapping[str, Any]) -> str:
    """By which method the features were learned."""
    known_as = method(card)
    return f"Image features learned without labels by {known_as.title} ({known_as.source}), with simsiam_tf."


def known(card: Mapping[str, Any]) -> list[str]:
    """What is known of the training, as sections of a page.

    A card can be another's: its values are text here, whatever they hold.
    """
    lines: list[str] = []
    if "data" in card:
        images = inline(card.get("images", "?"))
        lines += ["", "## Training", "", f"- data: {inline(card['data'])}, {images} images"]
        lines += [f"- steps: {inline(card['step'])}"] if "step" in card else []
        lines += [f"- diagnosis: {inline(card['diagnosis'])}"] if "diagnosis" in card else []
    accuracy = {name: _table(_table(card, "accuracy"), name) for name in _table(card, "accuracy")}
    columns = list(dict.fromkeys(k for row in accuracy.values() for k in row))
    if accuracy:
        heads = " | ".join(inline(column) for column in columns)
        lines += ["", "## Accuracy", "", f"| | {heads} |", "|---" * (len(columns) + 1) + "|"]
        for name, row in accuracy.items():
            shown = (f"{v:.1%}" if isinstance(v := row.get(c), int | float) else "" for c in columns)
            lines.append(f"| {inline(name)} | {' | '.join(shown)} |")
    configuration = _table(card, "configuration")
    if configuration:
        flags = (f"--{k}={v}" for k, v in configuration.items() if v is not None)
        lines += ["", "## Configuration", "", *fenced(_line(flag) for flag in flags)]
    made = [
        f"- {inline(k)}: {inline(v)}"
        for key in ("made with", "exported with")
        for k, v in _table(card, key).items()
    ]
    return [*lines, "", "## Versions", "", *dict.fromkeys(made), ""]


def inline(value: Any) -> str:
    """A value as text within a line of Markdown, which it neither leaves nor formats."""
    text = html.escape(_line(value), quote=False)
    return re.sub(r"([\\`*_\[\]|#~!])", r"\\\1", text)


def fenced(lines: Iterable[str], language: str = "") -> list[str]:
    """Lines of code between fences that none of them closes."""
    lines = list(lines)
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence + language, *lines, fence]


def _line(value: Any) -> str:
    """A value as one line of printable text."""
    text = " ".join(str(value).split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _table(card: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A dictionary of a card; empty where it has another thing there."""
    value = card.get(key)
    return value if isinstance(value, dict) else {}
