"""Pre-training as a task of the loop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf.config import PretrainConfig
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate.diagnosis import Diagnosis, diagnose
from simsiam_tf.loop import launch
from simsiam_tf.loop.loop import COLLAPSED, DIVERGED, DONE, Outcome
from simsiam_tf.loop.task import add_accuracy_to_card
from simsiam_tf.methods import metrics
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.runtime.signals import INTERRUPTED
from simsiam_tf.training.build_run import PretrainComponents, build_pretraining, knn_every, untrained_backbone
from simsiam_tf.training.callbacks import KNN

WITHOUT_KNN = "final_knn=false: the weights are exported, and only this evaluation is left out"

__all__ = ["COLLAPSED", "DIVERGED", "DONE", "INTERRUPTED", "Outcome", "pretrain"]


def pretrain(config: PretrainConfig, callbacks: Sequence[keras.callbacks.Callback] = ()) -> Outcome:
    """Pre-trains in config.workdir; continues the run in this folder if there is one.

    Args:
        config: a validated configuration with a workdir.
        callbacks: Keras callbacks. Their batch hooks are called once for each call of the compiled loop,
            which may run several steps; `model.stop_training` ends the run then.

    Raises:
        UserError: before any training, for options, data or devices that do not work.
    """

    def task(config: PretrainConfig, workers: Workers, report: Path) -> Pretraining:
        return Pretraining(config, build_pretraining(config, report, workers))

    return launch.run(config, task, callbacks)


class Pretraining:
    """Pre-training as a task of the loop: its metrics, evaluator and export (`loop.task.Task`)."""

    trained_name, untrained_name = "backbone", "untrained backbone"

    def __init__(self, config: PretrainConfig, components: PretrainComponents) -> None:
        self.config, self.components, self.monitor = config, components, components.monitor
        if config.weights:
            components.metadata["weights"] = backbone_file.sha256(backbone_file.backbone_path(config.weights))
        self.metrics = EmbeddingMetrics(config.loss, components.total_steps)
        self.ending_diagnoses = ("collapse",) if config.fail_on_collapse else ()
        self.evaluator = None
        if self.monitor is not None:
            self.evaluator = KNN(self.monitor, every=knn_every(components, config), images=config.knn_images)

    def baselines(self, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
        """kNN accuracy of raw pixels and of the untrained backbone, on `knn_images` images."""
        if self.config.weights:
            say(f"initial weights: {self.components.start}")
        if self.monitor is None:
            return {}
        images = self.config.knn_images
        say(f"baselines on {self.monitor.size(images)} images: raw pixels, untrained backbone")
        with _memory_for_knn("fewer `knn_images`, or monitor=none"):
            return self.monitor.baselines(self.components.model.backbone, images)

    def final_accuracy(self, say: Callable[[str], None]) -> dict[str, float]:
        """kNN accuracy of the backbone on all images; empty with final_knn=false."""
        if self.monitor is None or not self.config.final_knn:
            return {}
        say(f"final kNN on {self.monitor.size()} images: this backbone, raw pixels, untrained backbone")
        with _memory_for_knn(WITHOUT_KNN):
            return self.monitor.backbone_accuracy(self.components.model.backbone)

    def final_baselines(self, before: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        """kNN accuracy of the baselines on all images; those before the run may be on fewer."""
        del before
        assert self.monitor is not None  # otherwise `final_accuracy` is empty
        with _memory_for_knn(WITHOUT_KNN):
            return self.monitor.baselines(untrained_backbone(self.config, self.components))

    def export(self, workdir: Path, metadata: dict) -> None:
        """Writes the backbone and, beside it, the heads."""
        model = self.components.model
        heads = {name: getattr(model, name) for name in backbone_file.HEADS if getattr(model, name, None)}
        backbone_file.export_networks({"backbone": model.backbone, **heads}, workdir, metadata)

    def add_accuracy(self, workdir: Path, accuracy: dict[str, dict[str, float]]) -> None:
        """Adds the accuracy to the metadata of the exported backbone."""
        add_accuracy_to_card(workdir / backbone_file.EXPORTED, accuracy)

    def exported_card(self, workdir: Path) -> dict:
        """The metadata of the exported backbone; empty without one."""
        return backbone_file.read_card(workdir)


@contextlib.contextmanager
def _memory_for_knn(advice: str) -> Iterator[None]:
    """Raises UserError with the advice where the features of the monitor's images do not fit into memory."""
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise UserError(f"the kNN monitor's features do not fit into memory. Rerun with {advice}.") from error


class EmbeddingMetrics:
    """Metrics of a pre-training: std·√d and effective rank of the embeddings, and a diagnosis (Sec. 4.1)."""

    metric_name, metric_label = "std", "std·√d"
    evaluation_name, evaluation_label = "knn20", "kNN"

    def __init__(self, loss: str, total_steps: int) -> None:
        self.loss, self.total_steps = loss, total_steps

    def record_values(self, values: np.ndarray, z: np.ndarray | None) -> dict[str, float]:
        """std: mean over the steps. rank: effective rank of the last step's embeddings."""
        return {"std": float(values.mean()), "rank": 1.0 if z is None else metrics.effective_rank(z)}

    def learning_rates(self, optimizer: keras.optimizers.Optimizer, step: int) -> dict[str, float]:
        """Learning rates of the encoder and of the predictor at a step."""
        lr = optimizer._learning_rate(step)
        h = optimizer.part_learning_rates.get("predictor")
        return {"lr": float(lr), "lr_predictor": float(lr if h is None else h(step))}

    def diagnose(self, records: list[dict]) -> Diagnosis:
        """The diagnosis of the records, by the limits of this loss."""
        return diagnose(records, self.total_steps, self.loss)
