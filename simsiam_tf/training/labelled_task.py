"""What the trainings with labels have in common."""

from __future__ import annotations

import numpy as np

from simsiam_tf.evaluate.diagnosis import Diagnosis
from simsiam_tf.loop.task import Task


class LabelledTask(Task):
    """A run whose model learns from targets, and whose metric is an accuracy."""

    def record_values(self, metrics: np.ndarray, z: np.ndarray | None) -> dict[str, float]:
        """The training metric by its name: the mean over the steps that have one, none where none has."""
        del z
        known = metrics[~np.isnan(metrics)]
        return {self.metric_name: float(known.mean())} if len(known) else {}

    def diagnose(self, records: list[dict], evaluation: dict[str, float]) -> Diagnosis:
        del evaluation
        return loss_diagnosis(records)


def loss_diagnosis(records: list[dict]) -> Diagnosis:
    """ "divergence" where the last loss is not finite, else "healthy"."""
    if not records:
        return Diagnosis("healthy", "")
    loss, step = records[-1]["loss"], records[-1]["step"]
    return Diagnosis("healthy" if np.isfinite(loss) else "divergence", f"loss {loss:.3g} at step {step}")
