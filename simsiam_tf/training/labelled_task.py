"""The base class of the tasks that train with labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from simsiam_tf.evaluate.diagnosis import Diagnosis
from simsiam_tf.loop.task import Accuracies, Task, read_card
from simsiam_tf.runtime.atomic_files import atomic_write_text

RESULT = "result.json"
# Entries of the model card that result.json has, too.
CARD_ENTRIES = (
    "images", "test", "test images", "classes", "init", "weights", "step", "configuration", "made with"
)  # fmt: skip


class LabelledTask(Task):
    """A run whose model learns from targets, and whose metric is an accuracy.

    what: title of the run in result.json, such as "fine-tuning".
    """

    what: str
    evaluates_as_at_end = True

    def record_values(self, metrics: np.ndarray, z: np.ndarray | None) -> dict[str, float]:
        """{metric name: mean of the training metric over the steps that have one}; {} where none has one."""
        del z
        finite = metrics[~np.isnan(metrics)]
        return {self.metric_name: float(finite.mean())} if len(finite) else {}

    def diagnose(self, records: list[dict], evaluation: dict[str, float]) -> Diagnosis:
        del evaluation
        return loss_diagnosis(records)

    def add_accuracy(self, workdir: Path, accuracy: Accuracies, diagnosis: str) -> None:
        """Adds the metrics to the model card and writes result.json."""
        card = read_card(workdir / self.exported_file)
        result = {
            "what": self.what, **accuracy[self.trained_name], "train": card["data"],
            **{name: card[name] for name in CARD_ENTRIES if name in card},
        }  # fmt: skip
        atomic_write_text(workdir / RESULT, json.dumps(result, indent=1) + "\n")
        super().add_accuracy(workdir, accuracy, diagnosis)  # last, since it marks the run as evaluated


def loss_diagnosis(records: list[dict]) -> Diagnosis:
    """ "divergence" where the last loss is not finite, else "healthy"."""
    if not records:
        return Diagnosis("healthy", "")
    loss, step = records[-1]["loss"], records[-1]["step"]
    return Diagnosis("healthy" if np.isfinite(loss) else "divergence", f"loss {loss:.3g} at step {step}")
