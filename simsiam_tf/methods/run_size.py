"""The size of a run, as methods need it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class RunSize:
    """Numbers of a run that some methods need: steps, steps of an epoch, training images, and the seed."""

    steps: int
    epoch_steps: int
    images: int
    seed: int
