"""Interfaces between the loop and a run: components, metrics, evaluator and export."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from simsiam_tf.data import Source, Views
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate.diagnosis import Diagnosis
from simsiam_tf.methods import ViewModel
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime import atomic_files

Accuracies = dict[str, dict[str, float]]  # name of what was evaluated → its accuracies, in [0, 1]


@dataclasses.dataclass
class RunComponents:
    """The components of any run.

    on_device: whether the batch stage of the views runs with the model.
    metadata: JSON that must stay the same when the run continues, besides its options, such as the images'
        digest and the values that "auto" chose.
    data_service: HOST:PORT of the dispatcher.
    first_step: the step at which the run begins; above 0 where another program trained the steps before.
    targets: whether batches hold "target", for models that learn from labels.
    """

    strategy: tf.distribute.Strategy
    source: Source
    views: Views
    model: ViewModel
    total_steps: int
    precision: str
    on_device: bool
    metadata: dict[str, Any]
    workers: Workers
    data_service: str | None = None
    first_step: int = 0
    targets: bool = dataclasses.field(default=False, kw_only=True)


class RunMetrics(Protocol):
    """The metrics of a kind of run, besides its loss.

    metric_name, metric_label: name of the metric of a step (`ViewModel.metric`), in logs and in the progress
        bar.
    evaluation_name, evaluation_label: the same for the accuracy of an evaluation, in [0, 1].
    """

    metric_name: str
    metric_label: str
    evaluation_name: str
    evaluation_label: str

    def record_values(self, metrics: np.ndarray, z: np.ndarray | None, /) -> dict[str, float]:
        """Returns a record's values besides the loss.

        metrics: [n], one per step. z: [B, d] of the last step; None if a loss was not a number.
        """
        ...

    def learning_rates(self, optimizer: Any, step: int) -> dict[str, float]:
        """Returns the learning rates of a step, by name."""
        ...

    def diagnose(self, records: list[dict]) -> Diagnosis:
        """Judges a run by its training records, oldest first."""
        ...


class Evaluator(Protocol):
    """A Keras callback that evaluates at the ends of epochs. latest: its accuracies; empty for none."""

    latest: dict[str, float]

    def due(self, epochs: int) -> bool: ...


class Task(Protocol):
    """What a run trains, evaluates and exports; the loop is the same for all.

    trained_name, untrained_name: what accuracies call the model at the end and at the start.
    ending_diagnoses: names of diagnoses that end the run.
    """

    trained_name: str
    untrained_name: str

    @property
    def config(self) -> Any: ...  # a RunConfig with epochs and batch_size

    @property
    def components(self) -> RunComponents: ...

    @property
    def metrics(self) -> RunMetrics: ...

    @property
    def evaluator(self) -> Evaluator | None: ...

    @property
    def ending_diagnoses(self) -> tuple[str, ...]: ...

    def baselines(self, say: Callable[[str], None]) -> Accuracies:
        """Evaluates the baselines, before the first step; empty for none."""
        ...

    def final_accuracy(self, say: Callable[[str], None]) -> dict[str, float]:
        """Evaluates the trained model, once it is exported; empty for no evaluation."""
        ...

    def final_baselines(self, before: Accuracies) -> Accuracies:
        """Returns the baselines to show beside `final_accuracy`. before: baselines of the start."""
        ...

    def export(self, workdir: Path, metadata: dict, /) -> None:
        """Writes the trained model and `metadata`, whose "accuracy" is still empty."""

    def add_accuracy(self, workdir: Path, accuracy: Accuracies) -> None:
        """Adds the final accuracy to what `export` wrote."""

    def exported_card(self, workdir: Path) -> dict:
        """Returns the metadata that `export` wrote; empty if there is none, or it does not fit the file."""
        ...


def read_card(file: Path) -> dict:
    """Reads the card of an exported file. Raises FileNotFoundError if either was removed."""
    card = backbone_file.read_card(file)
    if not card:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
    return card


def add_accuracy_to_card(file: Path, accuracy: Accuracies) -> None:
    """Writes an accuracy into the card of an exported file. Raises OSError."""
    card = {**read_card(file), "accuracy": accuracy}
    atomic_files.atomic_write_text(file.with_suffix(".json"), backbone_file.card_text(card))
