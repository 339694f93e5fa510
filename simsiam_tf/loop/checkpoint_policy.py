"""When a run is committed, and what happens where it cannot be."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from simsiam_tf.loop.checkpoints import Checkpoints
from simsiam_tf.loop.workdir import Workdir
from simsiam_tf.runtime.errors import UserError

SHARE = 0.01  # of the time that commits at the ends of short epochs may take
RETRY_SECONDS = 60.0  # until a commit that could not be written is tried again


class CheckpointPolicy:
    """Checkpoints by the clock and at the ends of epochs.

    step: of the newest commit.

    Args:
        workdir: whose records go to the disk with every commit.
        commits: where to.
        minutes: between commits by the clock.
        step: of the commit that the run continues from, or 0.
        say: takes a line for the user.
    """

    def __init__(
        self, workdir: Workdir, commits: Checkpoints, minutes: float, step: int, say: Callable[[str], None]
    ) -> None:
        self.workdir, self.commits, self.minutes, self.step = workdir, commits, minutes, step
        self._say = say
        self._committed = self._tried = time.monotonic()
        self._cost = 0.0  # seconds of a commit

    def due(self, epoch_ended: bool, evaluates: bool) -> bool:
        """Whether to commit now.

        epoch_ended: commits while that takes less than SHARE of the time.
        evaluates: an evaluation comes next, which then need not be waited for.
        """
        if self.workdir.remake_if_removed():
            self._say(f"{self.workdir.path} was removed; it is made anew")
            return True
        now = time.monotonic()
        if self._tried > self._committed:  # the last attempt failed
            return now - self._tried > RETRY_SECONDS
        since = now - self._committed
        return since > 60 * self.minutes or evaluates or (epoch_ended and since > self._cost / SHARE)

    def commit(
        self, step: int, extra: dict[str, Any], must: bool, interval: np.ndarray | None = None
    ) -> None:
        """Checkpoints the state as of `step`, with `extra` (JSON).

        interval: as in `Checkpoints.save`.
        must: raises UserError where it cannot be written; otherwise says so, and it is tried again.
        """
        self._tried = began = time.monotonic()
        try:
            self.workdir.records.sync()
            self.commits.save(step, extra, interval)
        except (OSError, tf.errors.OpError) as error:
            text = (
                f"workdir={self.workdir.path}: the checkpoint of step {step} could not be "
                f"written ({_reason(error)}); earlier ones are kept."
            )
            if must:
                raise UserError(f"{text} Make room and rerun.") from error
            self._say(f"{text} Make room: it is tried again every minute.")
            return
        self._committed, self.step = time.monotonic(), step
        self._cost = self._committed - began


def _reason(error: Exception) -> str:
    """An error's text without TensorFlow's names for its nodes; of a long one the ends, which tell most."""
    text = " ".join(re.sub(r"\{\{.*?\}\}", "", str(getattr(error, "message", error))).split())
    return text if len(text) <= 200 else f"{text[:100]} … {text[-100:]}"
