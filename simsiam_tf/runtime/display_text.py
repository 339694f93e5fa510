"""Text of others, such as names of files and classes, as it can be shown to a person."""

from __future__ import annotations

import re

JOINERS = "\u200c\u200d"  # invisible, and part of how some scripts and emoji are written
COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # sequences that terminals obey, as torch's messages have


_LONE = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # halves of characters that stand for no byte of a name


def as_text(name: str) -> str:
    r"""A name with escapes (\xe9) for bytes that are no UTF-8: text that every program can read."""
    name = _LONE.sub(lambda half: f"\\u{ord(half[0]):04x}", name)
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def printable_text(text: str) -> str:
    """The same text with escapes for bytes that are no UTF-8 and for characters that command a terminal."""
    return "".join(map(_printable, as_text(text)))


def _printable(character: str) -> str:
    if character.isprintable() or character in JOINERS:
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode()
