"""Functions and classes of the user's, which an option names as py:MODULE:NAME."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from simsiam_tf.runtime.errors import UserError


def import_object(name: str, option: str, form: str, description: str) -> Any:
    """Imports MODULE:NAME, from the current folder as well, as `python -m` does.

    Args:
        name: what follows "py:".
        option, form, description: for the error: the option, how its value is written, and what it names, as
            in "backbone", "py:MODULE:FUNCTION" and "a function of (size, channels)".

    Raises:
        UserError: there is no such module, or no such name in it.
    """
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{option}=py:{name}: cannot be imported ({error}). Pass {option}={form} of {description}, in "
            "the current folder or installed."
        ) from error
