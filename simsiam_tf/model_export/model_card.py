"""The model card of an export: its input and output, its training and the versions that made it."""

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
from simsiam_tf.model_export.formats import FORMATS, ExportedModel
from simsiam_tf.pretrained.pretrained_backbone import Pretrained
from simsiam_tf.runtime.atomic_files import atomic_write_text
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.runtime.versions import library_versions

FROM_SOURCE = ("data", "images", "step", "accuracy", "diagnosis", "classes", "configuration", "made with")


def card_metadata(pretrained: Pretrained, exported: ExportedModel) -> dict[str, Any]:
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
        **{key: pretrained.card[key] for key in FROM_SOURCE if key in pretrained.card},
        "exported": datetime.date.today().isoformat(),
        "exported with": {"simsiam_tf": simsiam_tf.__version__, **library_versions()},
    }  # fmt: skip


def write_model_card(pretrained: Pretrained, exported: ExportedModel) -> tuple[Path, Path]:
    """Writes the card beside the model as JSON and as Markdown; returns the two paths."""
    card = card_metadata(pretrained, exported)
    data, page = (exported.path.with_name(f"{exported.path.name}.{suffix}") for suffix in ("json", "md"))
    try:
        atomic_write_text(data, json.dumps(card, indent=1) + "\n")
        atomic_write_text(page, card_page(card))
    except OSError as error:
        raise UserError(f"{data}: the card cannot be written ({error.strerror or error}).") from error
    return data, page


def card_page(card: dict[str, Any]) -> str:
    """The card in Markdown."""
    preprocessing, difference = card["preprocessing"], card["largest difference from the source"]
    name = json.dumps(card["file"])[1:-1]
    lines = [
        f"# {inline(card['file'])}", "",
        summary(card),
        "", "## Use", "", *fenced([FORMATS[card["format"]].usage.format(name=name)], "python"), "",
        f"- images: {card['input']}; all images of a batch have the same size",
        f"- features: {card['output']}",
        f"- preprocessing, inside the model: resized to {preprocessing['size']} pixels, "
        f"mean {preprocessing['mean']} and std {preprocessing['std']} of values in [0, 1]",
        f"- largest difference of a feature from the source's: {difference:.2g} (largest feature "
        f"{card['largest feature']:.2g})",
        f"- SHA-256: `{card['sha256']}`", f"- source: `{card['source']['sha256']}`",
    ]  # fmt: skip
    return "\n".join([*lines, *training_sections(card)])


def method_of_card(card: Mapping[str, Any]) -> Method:
    """The method that a card names."""
    return method_of(_table(card, "configuration"))


def summary(card: Mapping[str, Any]) -> str:
    """A sentence that names the method by which the features were learned."""
    method = method_of_card(card)
    return f"Image features learned without labels by {method.title} ({method.source}), with simsiam_tf."


def training_sections(card: Mapping[str, Any]) -> list[str]:
    """The training in sections of a page: data, accuracy, configuration, versions.

    A card can come from someone else: all its values are written as plain text.
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
            cells = (f"{v:.1%}" if isinstance(v := row.get(c), int | float) else "" for c in columns)
            lines.append(f"| {inline(name)} | {' | '.join(cells)} |")
    configuration = _table(card, "configuration")
    if configuration:
        flags = (f"--{k}={v}" for k, v in configuration.items() if v is not None)
        lines += ["", "## Configuration", "", *fenced(_line(flag) for flag in flags)]
    versions = [
        f"- {inline(k)}: {inline(v)}"
        for key in ("made with", "exported with")
        for k, v in _table(card, key).items()
    ]
    return [*lines, "", "## Versions", "", *dict.fromkeys(versions), ""]


def inline(value: Any) -> str:
    """A value as text within a line of Markdown, which it can neither end nor format."""
    text = html.escape(_line(value), quote=False)
    return re.sub(r"([\\`*_\[\]|#~!])", r"\\\1", text)


def fenced(lines: Iterable[str], language: str = "") -> list[str]:
    """Lines of code between fences that none of the lines closes."""
    lines = list(lines)
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence + language, *lines, fence]


def _line(value: Any) -> str:
    """A value as one line of printable text."""
    text = " ".join(str(value).split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _table(card: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A dictionary within a card; empty where the card has something else."""
    value = card.get(key)
    return value if isinstance(value, dict) else {}
