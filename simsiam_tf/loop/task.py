"""What a run is about: the side of it that the loop (`running`) does not know."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from simsiam_tf.loop.metrics_log import RunMetrics
from simsiam_tf.loop.run_components import RunComponents
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime import atomic_files


class Evaluator(Protocol):
    """A Keras callback that scores the model at the ends of epochs. latest: its figures; empty for none."""

    latest: dict[str, float]

    def due(self, epochs: int) -> bool: ...


class Task(Protocol):
    """What a run is about; the loop is the same for all.

    config: epochs, batch_size, seed, log_every, save_minutes, keep and what the task itself needs.
    trained_name, untrained_name: names, among accuracies, of what the run ends and begins with.
    ending_diagnoses: names of diagnoses that end the run.
    """

    config: Any
    components: RunComponents
    metrics: RunMetrics
    evaluator: Evaluator | None
    trained_name: str
    untrained_name: str
    ending_diagnoses: tuple[str, ...]

    def baselines(self, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
        """Accuracies that the run has to beat, by name, before its first step; empty for none."""

    def final_accuracy(self, say: Callable[[str], None]) -> dict[str, float]:
        """The figures of the trained model, once it is exported; empty where nothing judges it."""

    def final_baselines(self, before: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        """What `final_accuracy` is to be held against. before: the baselines of the start."""

    def export(self, workdir: Path, facts: dict) -> None:
        """Writes what the run was for, before it is judged: the facts' "accuracy" is empty."""

    def add_accuracy(self, workdir: Path, accuracy: dict[str, dict[str, float]]) -> None:
        """Adds the final accuracy, by name, to what `export` wrote."""

    def exported_card(self, workdir: Path) -> dict:
        """The facts that `export` wrote; empty where it did not, or they do not fit."""


def read_card(file: Path) -> dict:
    """The card of an exported file. Raises FileNotFoundError where somebody has removed either."""
    card = backbone_file.card(file)
    if not card:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
    return card


def add_accuracy_to_card(file: Path, accuracy: dict[str, dict[str, float]]) -> None:
    """Writes an accuracy into the card of an exported file. Raises OSError."""
    card = {**read_card(file), "accuracy": accuracy}
    atomic_files.atomic_write_text(file.with_suffix(".json"), backbone_file.card_text(card))
