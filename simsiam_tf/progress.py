"""Progress on anything that takes longer than a few seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

DELAY = 2.0  # seconds before a bar appears


def bar(what: Iterable | None, description: str, **options: Any) -> tqdm:
    """tqdm, seldom enough for a log file where stderr is one. options: of tqdm."""
    interval = 0.5 if sys.stderr.isatty() else 10.0
    options = {"delay": DELAY, "mininterval": interval, **options}
    return tqdm(what, description, **options)
