"""Describes the training of a backbone in Markdown, with all values of its card escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

import simsiam_tf
from simsiam_tf.config import method_of
from simsiam_tf.evaluate.verdict import MEASURES
from simsiam_tf.pretrained.backbone_file import card_entries
from simsiam_tf.runtime.display_text import one_line
from simsiam_tf.runtime.versions import library_versions


def escape_markdown(value: Any) -> str:
    """A value as text for a line of Markdown, with everything escaped that would format or end the line."""
    return re.sub(r"([\\`*_\[\]|#~!])", r"\\\1", html.escape(one_line(value), quote=False))


def method_summary(card: Mapping[str, Any]) -> tuple[str, str]:
    """(title of a backbone's method, or "image features" where unknown; a sentence about its features)."""
    configuration = card_entries(card, "configuration")
    if "method" not in configuration:  # converted, fine-tuned, or of another program
        return "image features", "Image features of a Keras network, exported by simsiam_tf."
    if not learned(card):
        return "image features", "Image features of published weights, read without training by simsiam_tf."
    method = method_of(configuration)
    source = f"by {method.title} ({method.source}), with simsiam_tf"
    return method.title, f"Image features learned without labels {source}."


def learned(card: Mapping[str, Any]) -> bool:
    """Whether a backbone is of a run of this package that trained it: not with epochs=0."""
    return card_entries(card, "configuration").get("epochs", 1) != 0 and "configuration" in card


def training_sections(card: Mapping[str, Any]) -> str:
    """Markdown sections on the data, accuracy and configuration of a training, and versions of libraries."""
    lines: list[str] = []
    if "data" in card:
        data, images = escape_markdown(card["data"]), escape_markdown(card.get("images", "?"))
        trained = card_entries(card, "configuration").get("epochs") != 0
        lines += ["", "## Training" if trained else "## Images", "", f"- data: {data}, {images} images"]
        rows = (("steps", "step"), ("diagnosis", "diagnosis")) if trained else ()
        lines += [f"- {name}: {escape_markdown(card[key])}" for name, key in rows if key in card]
    finishing = card_entries(card, "finishing")
    if finishing:
        keys = "images", "shrinkage", "size"
        images, shrinkage, size = (escape_markdown(finishing.get(key, "?")) for key in keys)
        lines += ["", f"The last layer whitens the features, as measured on {images} images of "
                  f"{size} pixels (shrinkage {shrinkage})."]  # fmt: skip
    accuracy = card_entries(card, "accuracy")
    columns = list(dict.fromkeys(column for name in accuracy for column in card_entries(accuracy, name)))
    if accuracy:
        lines += ["", "## Accuracy", "", f"| | {' | '.join(map(escape_markdown, columns))} |"]
        lines.append("|---" * (len(columns) + 1) + "|")
        for name in accuracy:
            values = card_entries(accuracy, name)
            cells = (_measure_text(column, values.get(column)) for column in columns)
            lines.append(f"| {escape_markdown(name)} | {' | '.join(cells)} |")
    configuration = card_entries(card, "configuration").items()
    if configuration:
        flags = (one_line(f"--{name}={value}") for name, value in configuration if value is not None)
        lines += [
            "",
            "## Configuration",
            "",
            "```",
            *flags,
            "```",
        ]  # no flag can close the block, since its line starts with --
    made_with = card_entries(card, "made with").items()
    exported_with = {"simsiam_tf": simsiam_tf.__version__, **library_versions()}.items()
    versions = (f"- {escape_markdown(k)}: {escape_markdown(v)}" for k, v in (*made_with, *exported_with))
    return "\n".join([*lines, "", "## Versions", "", *dict.fromkeys(versions), ""])


def _measure_text(name: str, value: Any) -> str:
    """A measure as `MEASURES` has it, or else as an accuracy in per cent; "" for what is no number."""
    form = MEASURES[name].form if name in MEASURES else ".1%"
    return f"{value:{form}}" if isinstance(value, int | float) else ""
