"""Versions of the libraries that the bits of a run depend on."""

from __future__ import annotations

import importlib.metadata


def library_versions() -> dict[str, str]:
    """Returns library → version."""
    return {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")}
