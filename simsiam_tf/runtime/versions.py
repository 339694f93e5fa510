"""Versions of the libraries that a run's bits depend on."""

from __future__ import annotations

import importlib.metadata


def library_versions() -> dict[str, str]:
    """Name of a library → its version."""
    return {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")}
