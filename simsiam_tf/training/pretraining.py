"""Pre-training as a task of the loop."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf.config import PretrainConfig
from simsiam_tf.data import Source, from_images
from simsiam_tf.data.sources.python_source import Images
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate import finishing
from simsiam_tf.evaluate.diagnosis import Diagnosis, diagnose
from simsiam_tf.loop import launch
from simsiam_tf.loop.loop import COLLAPSED, DIVERGED, DONE, Outcome
from simsiam_tf.loop.task import Accuracies, Task
from simsiam_tf.methods.metrics import effective_rank
from simsiam_tf.nets import whitening
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.runtime.signals import INTERRUPTED
from simsiam_tf.training.build_run import build_pretraining, knn_every, untrained_backbone
from simsiam_tf.training.callbacks import KNN

log = logging.getLogger("simsiam_tf.run")

__all__ = ["COLLAPSED", "DIVERGED", "DONE", "INTERRUPTED", "Outcome", "pretrain"]


def pretrain(
    config: PretrainConfig,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    source: Source | Images | None = None,
) -> Outcome:
    """Pre-trains in config.workdir; continues the run in this folder if there is one.

    Args:
        config: a validated configuration with a workdir.
        callbacks: Keras callbacks. Their batch hooks are called once for each call of the compiled loop,
            which may run several steps; `model.stop_training` ends the run after that call.
        source: the images to use instead of config.data: a source, or what `data.from_images` takes.

    Raises:
        UserError: as for `launch.run_task`.
    """

    if source is None:
        return launch.run_task(config, Pretraining, callbacks)
    source = source if isinstance(source, Source) else from_images(source)
    config = dataclasses.replace(config, data=f"python:{source.name}")
    return launch.run_task(config, functools.partial(Pretraining, source=source), callbacks)


class Pretraining(Task):
    """Pre-training: records std·√d and effective rank of embeddings (Sec. 4.1); evaluates kNN accuracy."""

    trained_name, untrained_name = "backbone", "untrained backbone"
    metric_name, metric_label = "std", "std·√d"
    evaluation_name, evaluation_label = "knn20", "kNN"

    def __init__(
        self, config: PretrainConfig, workers: Workers, report: Path, source: Source | None = None
    ) -> None:
        components = build_pretraining(config, report, workers, source)
        super().__init__(config, components)
        self.start, self.monitor = components.start, components.monitor
        if config.weights:
            components.metadata["weights"] = backbone_file.sha256(backbone_file.backbone_path(config.weights))
        self.ending_diagnoses = ("collapse",) if config.fail_on_collapse else ()
        if self.monitor is not None:
            self.evaluator = KNN(self.monitor, every=knn_every(components, config), images=config.knn_images)

    def record_values(self, metrics: np.ndarray, z: np.ndarray | None) -> dict[str, float]:
        """std: mean over the steps. rank: effective rank of the last step's embeddings."""
        return {"std": float(metrics.mean()), "rank": 1.0 if z is None else effective_rank(z)}

    def learning_rates(self, step: int) -> dict[str, float]:
        """The optimizer's learning rates, always with "lr_predictor"."""
        rates = super().learning_rates(step)
        return {"lr": rates["lr"], "lr_predictor": rates["lr"], **rates}

    def diagnose(self, records: list[dict]) -> Diagnosis:
        return diagnose(records, self.components.total_steps, self.config.loss)

    def baselines(self) -> Accuracies:
        """kNN accuracy of untrained backbone and, for small images, raw pixels, on `knn_images` images."""
        if self.config.weights:
            log.warning("initial weights: %s", self.start)
        if self.monitor is None:
            return {}
        images = self.config.knn_images
        log.warning("kNN accuracy of the baselines on %d images", self.monitor.size(images))
        with _memory_for_knn("fewer `knn_images`, or monitor=none"):
            return self.monitor.baselines(self.components.model.backbone, images)

    def final_accuracies(self) -> Accuracies:
        """kNN accuracy of the backbone and the baselines on all images.

        Empty without a monitor or with final_knn=false. `baselines`, before the training, may use fewer
        images.
        """
        if self.monitor is None or not self.config.final_knn:
            return {}
        log.warning("final kNN accuracy of the backbone and the baselines on %d images", self.monitor.size())
        with _memory_for_knn(
            "final_knn=false: the weights are exported, and only this evaluation is left out"
        ):
            whiten = self.config.finish == "whiten"
            trained = self.monitor.backbone_accuracy(self.components.model.backbone, whiten=whiten)
            untrained = untrained_backbone(self.config, self.components)
            baselines = self.monitor.baselines(untrained, whiten=whiten)
        return {**baselines, "backbone": trained}

    def export(self, workdir: Path, metadata: dict) -> None:
        """Writes the backbone, finished by the option `finish`, and, beside it, projector and predictor."""
        model = self.components.model
        heads = {name: getattr(model, name) for name in backbone_file.HEADS if getattr(model, name, None)}
        backbone, record = model.backbone, {}
        if self.config.finish == "whiten":
            backbone, record = self._whitened(backbone)
        backbone_file.export_networks({"backbone": backbone, **heads}, workdir, {**metadata, **record})

    def _whitened(self, backbone: keras.Model) -> tuple[keras.Model, dict[str, Any]]:
        """(the backbone with whitened features, the card's record of the whitening)."""
        source, views = self.components.source, self.components.views
        log.warning("whitening, measured on %d images", min(source.size, finishing.IMAGES))
        finished, fitted = finishing.finish_backbone(backbone, source, views, self.config.seed)
        if fitted is None:
            log.warning("whitening left out: all images have the same features")
            return finished, {}
        few = fitted.rows < len(fitted.mean)
        log.warning(
            "whitening with shrinkage %g%s", fitted.shrinkage,
            f": {fitted.rows} images are few for {len(fitted.mean)} features" * few,
        )  # fmt: skip
        record = {"layer": whitening.NAME, "images": fitted.rows, "shrinkage": fitted.shrinkage}
        return finished, {"finishing": record}


@contextlib.contextmanager
def _memory_for_knn(advice: str) -> Iterator[None]:
    """Raises UserError where features do not fit into memory. advice: how to rerun, for the message."""
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise UserError(f"the kNN monitor's features do not fit into memory. Rerun with {advice}.") from error
