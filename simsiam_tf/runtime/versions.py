"""Versions of the libraries on which bit-identical results depend."""

from __future__ import annotations

import importlib.metadata


def library_versions() -> dict[str, str]:
    """Returns library → version."""
    return {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")}
