"""Errors for the user to fix: the command prints one line and ends with the error's `status`.

Messages name options as a notebook has them, `name` or name=value; the command line prints them as flags.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class UserError(ValueError):
    """Says in one line what is wrong, where, and what to type instead."""

    status = 2  # exit status of the command


class LostWorker(UserError):
    """Another process of the run has ended; the same command continues the run."""

    status = 75


def file_failure(error: BaseException) -> str | None:
    """The file or URL that a Python function in a TensorFlow graph could not read, and why; else None."""
    match = re.search(r"\w+Error: \[Errno \d+\] (.*): '(.*)'$", str(error), re.MULTILINE)
    return f"{match[2]}: {match[1]}" if match else None


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns " Did you mean X?" for the nearest known word, or a list of known words if none is near."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f" Did you mean {close[0]}?"
    return f" Choose from {', '.join(known[:12])}{', …' if len(known) > 12 else ''}."


def as_flags(text: str, options: Iterable[str]) -> str:
    """Turns these options in a message into flags: `name` → --name, name=value → --name=value."""
    names = "|".join(sorted(options, key=len, reverse=True))
    text = re.sub(rf"`({names})`", r"--\1", text)
    return re.sub(rf"(?<![\w./?&=\"'-])({names})=(?=\S)", r"--\1=", text)
