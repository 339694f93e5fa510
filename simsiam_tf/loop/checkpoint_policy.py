"""When a run saves a checkpoint, and what happens if the checkpoint cannot be written."""

from __future__ import annotations

import logging
import time
from typing import Any

import tensorflow as tf

from simsiam_tf.loop.checkpoints import Checkpoints
from simsiam_tf.loop.metrics_file import MetricsFile
from simsiam_tf.loop.workdir import Workdir, error_text
from simsiam_tf.runtime.errors import UserError

log = logging.getLogger("simsiam_tf.run")

SHARE = 0.01  # largest share of the time that checkpoints at the ends of epochs may take
RETRY_SECONDS = 60.0  # until a checkpoint that could not be written is tried again


class CheckpointPolicy:
    """Saves checkpoints by the clock, at the ends of epochs, before evaluations and at the end of the run.

    step: step of the newest checkpoint.

    Args:
        workdir, checkpoints: work folder and checkpoints of the run.
        metrics_file: records, brought to the disk with every checkpoint.
        minutes: minutes between checkpoints by the clock.
        step: step of the checkpoint that the run continues from, or else the first step.
    """

    def __init__(
        self, workdir: Workdir, checkpoints: Checkpoints, metrics_file: MetricsFile, minutes: float, step: int
    ) -> None:
        self.workdir, self.checkpoints, self.metrics_file = workdir, checkpoints, metrics_file
        self.minutes, self.step = minutes, step
        self._saved_at = self._tried_at = time.monotonic()
        self._seconds = 0.0  # seconds that the last checkpoint took

    def due(self, epoch_ended: bool, evaluates: bool) -> bool:
        """Returns whether to save now, by the clock and by the arguments.

        Always when the work folder was removed. A checkpoint that could not be written is tried again after
        RETRY_SECONDS, whatever the arguments.

        epoch_ended: saves if the last checkpoint took less than SHARE of the time since then.
        evaluates: saves, since an evaluation comes next, during which a signal may end the run.
        """
        if self.workdir.remake_if_removed():
            log.warning("%s was removed; it is made anew", self.workdir.path)
            return True
        now = time.monotonic()
        if self._tried_at > self._saved_at:  # the last attempt failed
            return now - self._tried_at > RETRY_SECONDS
        since = now - self._saved_at
        return since > 60 * self.minutes or evaluates or (epoch_ended and since > self._seconds / SHARE)

    def save(self, step: int, progress: dict[str, Any], is_last: bool) -> None:
        """Saves the state as of `step`, with `progress` (`Checkpoints.save`).

        is_last: whether to raise UserError if the checkpoint cannot be written; else that is a warning.
        """
        self._tried_at = began = time.monotonic()
        try:
            self.metrics_file.sync()
            self.checkpoints.save(step, progress)
        except (OSError, tf.errors.OpError) as error:
            text = (
                f"workdir={self.workdir.path}: the checkpoint of step {step} could not be "
                f"written ({error_text(error)}); earlier ones are kept."
            )
            if is_last:
                raise UserError(f"{text} Make room and rerun.") from error
            log.warning("%s Make room: it is tried again every minute.", text)
            return
        self._saved_at, self.step = time.monotonic(), step
        self._seconds = self._saved_at - began
