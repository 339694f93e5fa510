"""Modules that a library imports wherever they are installed, and has no use for here."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def withheld(*names: str) -> Iterator[None]:
    """Within, `import name` is an ImportError, unless the module has been imported before."""
    missing = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(missing))
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]
