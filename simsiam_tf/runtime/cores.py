"""The number of cores that this process computes on."""

from __future__ import annotations

import os

_limit: int | None = None


def count() -> int:
    """All cores of the machine, or as many as `limit` allows."""
    return _limit or os.cpu_count() or 1


def limit(cores: int) -> None:
    """Makes `count` return this number, where several processes share a machine."""
    global _limit
    _limit = cores
