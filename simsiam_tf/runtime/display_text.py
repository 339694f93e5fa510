"""Makes names of files and classes safe to show: escapes undecodable bytes and control characters."""

from __future__ import annotations

import re

JOINERS = "\u200c\u200d"  # invisible, and part of how some scripts and emoji are written
COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # terminal sequences, as torch puts into its messages
_LONE_SURROGATES = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # not those of undecodable bytes


def as_text(name: str) -> str:
    r"""Escapes the bytes of a name that are not valid UTF-8, as in \xe9, so that any program can read it."""
    name = _LONE_SURROGATES.sub(lambda half: f"\\u{ord(half[0]):04x}", name)
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def printable_text(text: str) -> str:
    """Escapes bytes that are not valid UTF-8, and control characters."""
    return "".join(map(_printable, as_text(text)))


def _printable(character: str) -> str:
    if character.isprintable() or character in JOINERS:
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode()
