"""Versions of the libraries on which bit-identical results depend."""

from importlib import metadata


def library_versions() -> dict[str, str]:
    """Returns library → version."""
    return {name: metadata.version(name) for name in ("tensorflow", "keras", "numpy")}
