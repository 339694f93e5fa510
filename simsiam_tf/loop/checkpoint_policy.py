"""When a run saves a checkpoint, and what happens if it cannot be written."""

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

SHARE = 0.01  # largest share of the time for checkpoints at the ends of short epochs
RETRY_SECONDS = 60.0  # until a checkpoint that could not be written is tried again


class CheckpointPolicy:
    """Saves checkpoints by the clock and at the ends of epochs.

    step: step of the newest checkpoint.

    Args:
        workdir: work folder, whose metrics.jsonl is synced with every checkpoint.
        checkpoints: checkpoints of the run.
        minutes: time between checkpoints by the clock.
        step: step of the checkpoint that the run continues from, or 0.
        say: writes a line for the user.
    """

    def __init__(
        self,
        workdir: Workdir,
        checkpoints: Checkpoints,
        minutes: float,
        step: int,
        say: Callable[[str], None],
    ) -> None:
        self.workdir, self.checkpoints, self.minutes, self.step = workdir, checkpoints, minutes, step
        self._say = say
        self._saved_at = self._tried_at = time.monotonic()
        self._seconds = 0.0  # that the last checkpoint took

    def due(self, epoch_ended: bool, evaluates: bool) -> bool:
        """Returns whether to save now.

        epoch_ended: saves if a checkpoint takes less than SHARE of the time since the last one.
        evaluates: saves, since an evaluation comes next, during which a signal may end the run.
        """
        if self.workdir.remake_if_removed():
            self._say(f"{self.workdir.path} was removed; it is made anew")
            return True
        now = time.monotonic()
        if self._tried_at > self._saved_at:  # the last attempt failed
            return now - self._tried_at > RETRY_SECONDS
        since = now - self._saved_at
        return since > 60 * self.minutes or evaluates or (epoch_ended and since > self._seconds / SHARE)

    def save(self, step: int, extra: dict[str, Any], must: bool, interval: np.ndarray | None = None) -> None:
        """Saves the state as of `step`, with `extra` and `interval` (`Checkpoints.save`).

        must: whether to raise UserError if it cannot be written; else reports it and tries again later.
        """
        self._tried_at = began = time.monotonic()
        try:
            self.workdir.metrics_file.sync()
            self.checkpoints.save(step, extra, interval)
        except (OSError, tf.errors.OpError) as error:
            text = (
                f"workdir={self.workdir.path}: the checkpoint of step {step} could not be "
                f"written ({_reason(error)}); earlier ones are kept."
            )
            if must:
                raise UserError(f"{text} Make room and rerun.") from error
            self._say(f"{text} Make room: it is tried again every minute.")
            return
        self._saved_at, self.step = time.monotonic(), step
        self._seconds = self._saved_at - began


def _reason(error: Exception) -> str:
    """Shortens an error's text to its beginning and end, without TensorFlow's names for nodes."""
    text = " ".join(re.sub(r"\{\{.*?\}\}", "", str(getattr(error, "message", error))).split())
    return text if len(text) <= 200 else f"{text[:100]} … {text[-100:]}"
