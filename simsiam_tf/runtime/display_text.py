"""Makes names of files and classes safe to show: escapes undecodable bytes and control characters."""

from __future__ import annotations

import re

JOINERS = "\u200c\u200d"  # invisible, and part of how some scripts and emoji are written
COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # sequences that terminals obey, as in messages of torch
_LONE_SURROGATES = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # those that stand for no byte of a file's name


def as_text(name: str) -> str:
    r"""Escapes the bytes of a name that are no UTF-8 (\xe9), so that every program can read it."""
    name = _LONE_SURROGATES.sub(lambda half: f"\\u{ord(half[0]):04x}", name)
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def printable_text(text: str) -> str:
    """Escapes bytes that are no UTF-8, and characters that command a terminal."""
    return "".join(map(_printable, as_text(text)))


def _printable(character: str) -> str:
    if character.isprintable() or character in JOINERS:
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode()
