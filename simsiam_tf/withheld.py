"""Modules that a library imports wherever they are installed, and has no use for here."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def withheld(name: str) -> Iterator[None]:
    """Within, `import name` is an ImportError, unless the module has been imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None
    try:
        yield
    finally:
        del sys.modules[name]
