"""The interface between the loop and what it trains: `RunComponents`, `Evaluator` and `Task`."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf.data import Source, Views, preview
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate.diagnosis import Diagnosis
from simsiam_tf.methods import ViewModel
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime import atomic_files

# Name of what was evaluated → its accuracies, in [0, 1], and "rankme", an effective rank.
Accuracies = dict[str, dict[str, float]]


@dataclasses.dataclass
class RunComponents:
    """The components of any run.

    metadata: JSON that must stay the same when the run continues, besides its options, such as the images'
        digest and the values that "auto" chose.
    on_device: whether the second stage of the views (`Views.augment`) runs with the model.
    data_service: HOST:PORT of the dispatcher of a tf.data service; None without one.
    first_step: the step at which the run begins; above 0 where another program trained the steps before.
    targets: whether batches hold "target", for models that learn from labels.
    make_batches: (this process's rows of each batch, elements that they are cut into) → what makes the
        dataset of a run's steps, as `data.pipeline.StepBatches` does; None: that, of `source` and `views`.
    """

    workers: Workers
    source: Source
    views: Views
    model: ViewModel
    total_steps: int
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    on_device: bool = False
    data_service: str | None = None
    first_step: int = 0
    targets: bool = False
    make_batches: Callable[[tuple[int, int], int], Any] | None = None

    @property
    def strategy(self) -> tf.distribute.Strategy:
        return self.workers.strategy


class Evaluator(keras.callbacks.Callback):
    """Adds the accuracies of `evaluate` to the logs of every n-th epoch, in `fit` and in the loop.

    every: n; 0 for never. is_whole_epoch: whether the epoch that ends is whole; a run may end within one.
    latest: accuracies at the end of the last epoch; empty if it was not evaluated.
    """

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every, self.is_whole_epoch = every, True
        self.latest: dict[str, float] = {}

    def evaluate(self) -> dict[str, float]:
        """Returns accuracies in [0, 1] by name."""
        raise NotImplementedError

    def due(self, epochs: int) -> bool:
        """Returns whether an evaluation follows epoch number `epochs`, counted from 1."""
        return self.every > 0 and epochs % self.every == 0 and self.is_whole_epoch

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.latest = self.evaluate() if self.due(epoch + 1) else {}
        if logs is not None:
            logs.update(self.latest)


class Task:
    """What a run trains, evaluates and exports; the loop is the same for all.

    trained_name, untrained_name: keys in `Accuracies` of the model at the end and at the start.
    metric_name, metric_label: name of the metric of a step (`ViewModel.metric`), in logs and in the progress
        bar.
    evaluation_name, evaluation_label: name of the accuracy of an evaluation, in logs and in the progress bar.
    exported_file: the file that `export` writes, within the work folder. Its model card tells a later process
        whether the run is exported and evaluated.
    ending_diagnoses: names of diagnoses that end the run, besides "divergence", which always does.
    unread_image: what to do about an image that cannot be read during the run.
    evaluator: evaluates at the ends of epochs; None for no such evaluation.
    evaluates_as_at_end: whether it does so on the images of the end, which then need not be evaluated twice.
    """

    trained_name: str
    untrained_name = ""
    metric_name: str
    metric_label: str
    evaluation_name: str
    evaluation_label: str
    exported_file = backbone_file.EXPORTED
    ending_diagnoses: tuple[str, ...] = ()
    unread_image = "Restore it, and type the same command to continue."
    evaluator: Evaluator | None = None
    evaluates_as_at_end = False

    def __init__(self, config: Any, components: RunComponents) -> None:
        self.config, self.components = config, components

    def record_values(self, metrics: np.ndarray, z: np.ndarray | None) -> dict[str, float]:
        """Returns a record's values besides the loss.

        metrics: [n], one per step. z: [B, d] of the last step; None if a loss was not finite.
        """
        raise NotImplementedError

    def learning_rates(self, step: int) -> dict[str, float]:
        """Returns the learning rates of a step, by name."""
        return self.components.model.optimizer.learning_rates(step)

    def diagnose(self, records: list[dict], evaluation: dict[str, float]) -> Diagnosis:
        """Returns the diagnosis of the run by its training records, oldest first, and its last evaluation.

        evaluation: accuracies of the trained model by name; empty before the first.
        """
        raise NotImplementedError

    def picture(self) -> np.ndarray:
        """Draws images and their views, to look at: uint8 [H, W, 3]."""
        return preview.grid(self.components.source, self.components.views, self.config.seed)[0]

    def baselines(self) -> Accuracies:
        """Evaluates the baselines, before the first step; empty for none."""
        return {}

    def final_accuracies(self) -> Accuracies:
        """Evaluates the trained model, as `trained_name`, and its baselines; empty for no evaluation."""
        raise NotImplementedError

    def export(self, workdir: Path, metadata: dict) -> None:
        """Writes the trained model, and its card with `metadata`, whose "accuracy" is still empty."""
        raise NotImplementedError

    def add_accuracy(self, workdir: Path, accuracy: Accuracies, diagnosis: str) -> None:
        """Adds the final accuracies, and the diagnosis by them, to the card that `export` wrote.

        Raises OSError.
        """
        add_accuracy_to_card(workdir / self.exported_file, accuracy, diagnosis)


def read_card(file: Path) -> dict:
    """Reads the card of an exported file. Raises FileNotFoundError if either is missing or damaged."""
    card = backbone_file.read_card(file)
    if not card:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
    return card


def add_accuracy_to_card(file: Path, accuracy: Accuracies, diagnosis: str) -> None:
    """Writes accuracies and the diagnosis into the card of an exported file. Raises OSError."""
    text = backbone_file.card_text({**read_card(file), "accuracy": accuracy, "diagnosis": diagnosis})
    atomic_files.atomic_write_text(file.with_suffix(".json"), text)
