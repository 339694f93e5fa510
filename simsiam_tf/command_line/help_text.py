"""Writes the text of --help from the fields of a configuration."""

from __future__ import annotations

import dataclasses
import shutil
import textwrap

from simsiam_tf import config as configs
from simsiam_tf.runtime.errors import as_flags

SHOWN_LAST = ("Run", "Only look")  # groups of flags


def usage(cls: type, prog: str, about: str) -> str:
    """Writes the text of --help, as wide as the terminal, 100 columns at most."""
    width = max(20, min(100, shutil.get_terminal_size((100, 24)).columns))
    kinds = configs.field_types(cls)
    group, sections = "", {}
    for field in dataclasses.fields(cls):
        meta = field.metadata
        group = meta["group"] or group
        shown = "| ".join(meta["choices"]) or kinds[field.name].__name__
        head = textwrap.wrap(f"--{field.name}={shown}", width - 2, subsequent_indent="    ")
        tail = "" if field.default is None else f" (default: {field.default})"
        text = textwrap.wrap(as_flags(meta["help"], kinds) + tail, width - 6)
        lines = [*(f"  {line}".replace("| ", "|") for line in head), *(f"      {line}" for line in text)]
        sections.setdefault(group, []).extend(lines)
    lines = [*_wrapped(f"usage: {prog} [--flagfile=FILE] [--NAME=VALUE …]", width), ""]
    lines += _wrapped(about, width)
    for group in sorted(sections, key=lambda name: name in SHOWN_LAST):
        lines += ["", *textwrap.wrap(group, width), *sections[group]]
    return "\n".join(lines)


def _wrapped(text: str, width: int) -> list[str]:
    """Splits a text into lines; breaks paragraphs and commands that are too wide."""
    lines = []
    for paragraph in text.split("\n\n"):
        block = paragraph.splitlines()
        if max(map(len, block)) > width and not paragraph.startswith(" "):
            block = textwrap.wrap(" ".join(block), width)
        elif max(map(len, block)) > width:
            block = [piece for line in block for piece in _continued(line, width)]
        lines += ["", *block]
    return lines[1:]


def _continued(line: str, width: int) -> list[str]:
    """Breaks a command into lines that a shell joins again."""
    *pieces, end = textwrap.wrap(
        line.strip(), width - 2, initial_indent=" " * 4, subsequent_indent=" " * 8,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return [*(f"{piece} \\" for piece in pieces), end]
