"""Writes the text of --help from the fields of a configuration."""

from __future__ import annotations

import dataclasses
import shutil
import textwrap

from simsiam_tf import config as configs
from simsiam_tf.runtime.errors import as_flags

SHOWN_LAST = ("Run", "Preview")  # groups of options


def usage(cls: type, prog: str, description: str) -> str:
    """Returns the text of --help for the fields of `cls`, wrapped to the terminal, at 20 to 100 columns.

    The commands in the description are not wrapped, so that they can be copied as they are.
    """
    width = max(20, min(100, shutil.get_terminal_size((100, 24)).columns))
    types = configs.field_types(cls)
    group, sections = "", {}
    for field in dataclasses.fields(cls):
        meta = field.metadata
        group = meta["group"] or group
        values = "| ".join([*meta["choices"], *filter(None, [meta["form"]])]) or types[field.name].__name__
        value = f"[={values}]" if meta["bare"] else f"={values}"
        head = textwrap.wrap(f"--{field.name}{value}", width - 2, subsequent_indent="    ")
        tail = "" if field.default is None else f" (default: {field.default})"
        text = textwrap.wrap(as_flags(meta["help"], types) + tail, width - 6)
        lines = [*(f"  {line}".replace("| ", "|") for line in head), *(f"      {line}" for line in text)]
        sections.setdefault(group, []).extend(lines)
    lines = textwrap.wrap(f"usage: {prog} [--flagfile=FILE] [--NAME=VALUE …]", width)
    for paragraph in description.split("\n\n"):
        commands = paragraph.startswith(" ")
        lines += ["", *(paragraph.splitlines() if commands else textwrap.wrap(paragraph, width))]
    for group in sorted(sections, key=lambda name: name in SHOWN_LAST):
        lines += ["", *textwrap.wrap(group, width), *sections[group]]
    return "\n".join(lines)
