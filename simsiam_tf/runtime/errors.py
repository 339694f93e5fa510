"""Errors that are the user's to mend: printed as one line, exit status 2.

The library names options as a notebook has them, `name` or name=value; command lines print them as flags.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class UserError(ValueError):
    """What is wrong, where, and what to type instead, in one line."""

    status = 2  # that a command ends with


class LostWorker(UserError):
    """Another process of the run has ended; the same command continues."""

    status = 75


def nearest(word: str, known: Iterable[str]) -> str:
    """ " Did you mean X?" for the nearest known word, or all of them when none is near."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f" Did you mean {close[0]}?"
    shown = ", ".join(known[:12])
    return f" Choose from {shown}{', …' if len(known) > 12 else ''}."


def as_flags(text: str, options: Iterable[str]) -> str:
    """A message of the library for a command line: `name` → --name, name=value → --name=value.

    options: names of the options that the command has; other words stay as they are.
    """
    names = "|".join(sorted(options, key=len, reverse=True))
    text = re.sub(rf"`({names})`", r"--\1", text)
    return re.sub(rf"(?<![\w./?&=\"'-])({names})=(?=\S)", r"--\1=", text)
