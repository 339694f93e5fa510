"""Makes names of files and classes safe to show: escapes undecodable bytes and control characters."""

from __future__ import annotations

import re
from typing import Any

TERMINAL_SEQUENCES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # such as the colours of torch's messages
_JOINERS = "\u200c\u200d"  # invisible, and part of how some scripts and emoji are written


def as_text(name: str) -> str:
    r"""Escapes the bytes of a name that are not valid UTF-8, as in \xe9, so that any program can read it."""
    return re.sub("[\ud800-\udfff]", lambda half: _escape(half[0]), name)


def printable_text(text: str) -> str:
    """Escapes bytes that are not valid UTF-8 and control characters; any white space becomes a space."""
    return "".join(c if c.isprintable() or c in _JOINERS else _escape(c) for c in text)


def counted(count: int, noun: str, plural: str | None = None, form: str = "") -> str:
    """A number with its noun, as in "1 file" and "2 files".

    plural: the noun's, where it is not the singular with an s. form: of the number, as in f"{count:,}".
    """
    return f"{count:{form}} {noun if count == 1 else plural or noun + 's'}"


def one_line(value: Any) -> str:
    """A value as one line of printable text, with single spaces."""
    return " ".join(printable_text(str(value)).split())


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # what Python makes of an undecodable byte
        return f"\\x{ord(character) - 0xDC00:02x}"
    return " " if character.isspace() else character.encode("unicode_escape").decode()
