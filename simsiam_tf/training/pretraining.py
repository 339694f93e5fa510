"""run(config): pre-training, as a task for the loop that all runs share (`running`)."""

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

LEFT_OUT = "final_knn=false: the weights are exported, and this alone is left out"

__all__ = ["COLLAPSED", "DIVERGED", "DONE", "INTERRUPTED", "Outcome", "run"]


def run(config: PretrainConfig, callbacks: Sequence[keras.callbacks.Callback] = ()) -> Outcome:
    """Pre-trains as configured in config.workdir, continuing what is there.

    Args:
        config: a validated configuration with a workdir.
        callbacks: Keras callbacks. Their batch hooks are called once for every call of the
            compiled loop, which may run several steps; `model.stop_training` is honoured then.

    Raises:
        UserError: before any training, for whatever cannot work.
    """

    def task(config: PretrainConfig, workers: Workers, report: Path) -> Pretraining:
        return Pretraining(config, build_pretraining(config, report, workers))

    return launch.run(config, task, callbacks)


class Pretraining:
    """What a pre-training run is known by, judged by and leaves (`running.Task`)."""

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
        """On the images used during training: raw pixels, and the backbone as it is."""
        if self.config.weights:
            say(f"begins with {self.components.start}")
        if self.monitor is None:
            return {}
        images = self.config.knn_images
        say(f"baselines on {self.monitor.size(images)} images: raw pixels, untrained backbone")
        with _enough_memory("fewer `knn_images`, or monitor=none"):
            return self.monitor.baselines(self.components.model.backbone, images)

    def final_accuracy(self, say: Callable[[str], None]) -> dict[str, float]:
        """On all images, where that is wanted."""
        if self.monitor is None or not self.config.final_knn:
            return {}
        say(f"final kNN on {self.monitor.size()} images: this backbone, raw pixels, untrained backbone")
        with _enough_memory(LEFT_OUT):
            return self.monitor.of_backbone(self.components.model.backbone)

    def final_baselines(self, before: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        """On all images, too. Those of the start may be of fewer: `knn_images` may change in a run."""
        del before
        with _enough_memory(LEFT_OUT):
            return self.monitor.baselines(untrained_backbone(self.config, self.components))

    def export(self, workdir: Path, facts: dict) -> None:
        """Writes the backbone and, beside it, the heads."""
        model = self.components.model
        heads = {name: getattr(model, name) for name in backbone_file.HEADS if getattr(model, name, None)}
        backbone_file.export_networks({"backbone": model.backbone, **heads}, workdir, facts)

    def add_accuracy(self, workdir: Path, accuracy: dict[str, dict[str, float]]) -> None:
        """Writes the card again."""
        add_accuracy_to_card(workdir / backbone_file.EXPORTED, accuracy)

    def exported_card(self, workdir: Path) -> dict:
        """The facts beside it."""
        return backbone_file.read_card(workdir)


@contextlib.contextmanager
def _enough_memory(mend: str) -> Iterator[None]:
    """Names what to pass where the features of the monitor's images do not fit into memory."""
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise UserError(f"the kNN monitor's features do not fit into memory. Rerun with {mend}.") from error


class EmbeddingMetrics:
    """std·√d and effective rank of the embeddings, and what they tell (Sec. 4.1)."""

    metric_name, metric_label = "std", "std·√d"
    evaluation_name, evaluation_label = "knn20", "kNN"

    def __init__(self, kind: str, total_steps: int) -> None:
        self.kind, self.total_steps = kind, total_steps

    def record_values(self, figures: np.ndarray, z: np.ndarray | None) -> dict[str, float]:
        """std: mean of the steps. rank: of the last step's embeddings."""
        return {"std": float(figures.mean()), "rank": 1.0 if z is None else metrics.effective_rank(z)}

    def learning_rates(self, optimizer: keras.optimizers.Optimizer, step: int) -> dict[str, float]:
        """Of the encoder and of the predictor."""
        lr = optimizer._learning_rate(step)
        h = optimizer.overrides.get("predictor")
        return {"lr": float(lr), "lr_predictor": float(lr if h is None else h(step))}

    def diagnose(self, records: list[dict]) -> Diagnosis:
        """By `diagnosis.diagnose`."""
        return diagnose(records, self.total_steps, self.kind)
