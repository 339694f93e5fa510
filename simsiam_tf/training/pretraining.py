"""Pre-training as a task of the loop."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf import nets
from simsiam_tf.config import PretrainConfig, with_method_defaults
from simsiam_tf.data import Source, from_images, sampling
from simsiam_tf.data.sources.python_source import Images
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate import finishing
from simsiam_tf.evaluate.diagnosis import Diagnosis, check_features, diagnose
from simsiam_tf.evaluate.label_free import LabelFreeMonitor
from simsiam_tf.evaluate.verdict import measured_title, measures_text
from simsiam_tf.features import extraction
from simsiam_tf.loop import launch
from simsiam_tf.loop.failures import step_failures
from simsiam_tf.loop.outcome import COLLAPSED, DIVERGED, DONE, Outcome
from simsiam_tf.loop.task import Accuracies, Task
from simsiam_tf.methods.metrics import effective_rank
from simsiam_tf.nets import whitening
from simsiam_tf.optimizers import schedules
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.recipes import budget, rules
from simsiam_tf.runtime.display_text import counted
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.runtime.signals import INTERRUPTED
from simsiam_tf.training import timed_run
from simsiam_tf.training.build_run import (
    PretrainComponents,
    build_pretraining,
    knn_every,
    untrained_backbone,
)
from simsiam_tf.training.callbacks import Monitoring
from simsiam_tf.training.run_data import follow_recipe, recall_network

log = logging.getLogger("simsiam_tf.run")
LOW_RATE = 0.01  # share of the highest learning rate below which a start is late

__all__ = ["COLLAPSED", "DIVERGED", "DONE", "INTERRUPTED", "Outcome", "pretrain"]


def pretrain(
    config: PretrainConfig,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    source: Source | Images | None = None,
    began: float | None = None,
) -> Outcome:
    """Pre-trains in config.workdir; continues the run in this folder if there is one.

    Args:
        config: a validated configuration with a workdir.
        callbacks: Keras callbacks. Their batch hooks are called once for each call of the compiled loop,
            which may run several steps; `model.stop_training` ends the run after that call.
        source: the images to use instead of config.data: a source, or an argument of `data.from_images`.
        began: the time, by `time.monotonic()`, from which config.minutes count; now when None.

    Raises:
        UserError: as for `launch.run_task`; or config.minutes is too short.
    """
    began = time.monotonic() if began is None else began
    if source is not None:
        source = source if isinstance(source, Source) else from_images(source)
        config = dataclasses.replace(config, data=f"python:{source.name}")
    make_task = functools.partial(_make_task, source=source, began=began)
    return launch.run_task(config, make_task, callbacks, _recall)


def _recall(config: PretrainConfig, before: dict[str, Any] | None) -> PretrainConfig:
    """Takes over the options that the run in config.workdir chose by `recipe`, `minutes` and `weights`."""
    return budget.recall_epochs(rules.recall_choices(recall_network(config, before), before), before)


def _make_task(
    config: PretrainConfig, workers: Workers, report: Path, source: Source | None, began: float
) -> Pretraining:
    """Makes the task, after choosing the options that the user left open.

    Where `minutes` determines the epochs, a trial run is timed first and then discarded.
    """
    with workers.chief_first():
        config, source = follow_recipe(config, report, source, log.warning)
    if config.minutes is None or not config.needs_timing:
        return Pretraining(config, workers, report, source)
    trial = Pretraining(budget.trial(config), workers, report, source)
    source, first_step = trial.components.source, trial.components.first_step
    seconds = 60 * config.minutes
    ends = began + seconds
    with step_failures(trial, report.parent, lambda: first_step):
        timed_run.check_minutes(trial, ends - time.monotonic())
        baselines, costs = timed_run.measure(trial, seconds)
    del trial
    gc.collect()  # frees the trial's model
    left = ends - time.monotonic()
    costs, left = workers.from_chief([dataclasses.asdict(costs), left])
    costs = budget.Costs(**costs)
    config = budget.choose_epochs(config, costs, left, source.size, first_step)
    steps = sampling.steps_in(config.epochs, source.size, config.batch_size)
    log.warning(
        "%g minutes: %s a step, %s steps (%.1f epochs); the rest: %s",
        config.minutes, costs.step_text, f"{steps - first_step:,}", config.epochs - config.start_epoch,
        costs.rest_text(steps - first_step, seconds - left),
    )  # fmt: skip
    return Pretraining(config, workers, report, source, baselines)


class Pretraining(Task):
    """Pre-training: records std·√d and effective rank of embeddings (Sec. 4.1).

    Evaluates kNN accuracy or, on images without labels, how often another crop of an image is found by the
    features (`label_free.py`).
    """

    trained_name, untrained_name = "backbone", "untrained backbone"
    metric_name, metric_label = "std", "std·√d"
    evaluation_name, evaluation_label = "knn20", "kNN"
    unread_image = "With on_bad_image=skip the next image stands in for it."
    components: PretrainComponents

    def __init__(
        self, config: PretrainConfig, workers: Workers, report: Path, source: Source | None = None,
        known_baselines: Accuracies | None = None,
    ) -> None:  # fmt: skip
        components = build_pretraining(config, report, workers, source)
        super().__init__(config, components)
        self.start, self.monitor = components.start, components.monitor
        self.known_baselines = known_baselines or {}
        self.ending_diagnoses = ("collapse",) if config.fail_on_collapse else ()
        if self.monitor is not None:
            self.evaluator = Monitoring(self.monitor, knn_every(components, config), config.knn_images)
        if isinstance(self.monitor, LabelFreeMonitor):
            self.evaluation_name, self.evaluation_label = "recall1", "own image"

    def record_values(self, metrics: np.ndarray, z: np.ndarray | None) -> dict[str, float]:
        """std: mean over the steps. rank: effective rank of the last step's embeddings."""
        return {"std": float(metrics.mean()), "rank": 1.0 if z is None else effective_rank(z)}

    def learning_rates(self, step: int) -> dict[str, float]:
        """The optimizer's learning rates, always with "lr_predictor"."""
        rates = super().learning_rates(step)
        return {"lr": rates["lr"], "lr_predictor": rates["lr"], **rates}

    def diagnose(self, records: list[dict], evaluation: dict[str, float]) -> Diagnosis:
        total, model = self.components.total_steps, self.components.model
        options = with_method_defaults(dataclasses.asdict(self.config))
        diagnosis = diagnose(records, total, self.config.loss, options)
        std, unsettled = evaluation.get("inference_std"), None
        if std is not None and records:
            steps = records[-1]["step"] - self.components.first_step
            unsettled = nets.unsettled(model.backbone, steps * self.config.method_options.view_count)
        return check_features(diagnosis, records, total, std, unsettled)

    def baselines(self) -> Accuracies:
        """Evaluates raw pixels and the initial backbone by the monitor, on `knn_images` images."""
        if self.config.weights:
            log.warning("initial weights: %s", self.start)
        if text := late_start(self.config, self.components):
            log.warning("%s", text)
        if self.components.momenta:
            before, now = self.components.momenta
            log.warning(
                "momentum of the backbone's BN: %.3g instead of %g, so that its moving averages settle in "
                "%d steps", now, before, self.components.total_steps - self.components.first_step,
            )  # fmt: skip
        if self.monitor is None or self.known_baselines or self.config.trains_nothing:
            return self.known_baselines
        return self.evaluate_baselines(self.monitor.baselines)

    def evaluate_baselines(self, evaluate: Callable[[keras.Model, int], Any]) -> Any:
        """Logs and returns evaluate(initial backbone, `knn_images`): accuracies, or a tuple of them first."""
        assert self.monitor is not None
        images = self.config.knn_images
        log.warning("%s of the baselines on %d images", self.monitor.title, self.monitor.size(images))
        with _memory_for_knn("fewer `knn_images`, or monitor=none"):
            result = evaluate(self.components.model.backbone, images)
        for name, measures in (result if isinstance(result, dict) else result[0]).items():
            title = measured_title(name, dataclasses.asdict(self.config))
            log.warning("%s: %s", title, measures_text(measures))
        return result

    def final_accuracies(self) -> Accuracies:
        """Evaluates backbone and baselines on `final_images` images, with labels (if any) and without.

        Empty without a monitor or with final_images=0. Where nothing is trained, raw pixels are the only
        baseline. The evaluation before the training, `baselines`, may use fewer images.
        """
        images = self.config.final_images
        if self.monitor is None or images == 0:
            return {}
        monitors = [self.monitor]
        if not isinstance(self.monitor, LabelFreeMonitor):
            monitors.append(LabelFreeMonitor(self.components.source, self.components.views))
        untrained = None if self.config.trains_nothing else untrained_backbone(self.config, self.components)
        backbone, accuracies = self.components.model.backbone, defaultdict(dict)
        advice = "final_images=0: the weights are exported, and only this evaluation is left out"
        whitens = self.read_size is not None and self._exported_whitening()
        for monitor in monitors:
            text = "final %s of the backbone and the baselines on %d images (final_images=N for fewer)"
            log.warning(text, monitor.title, count := monitor.size(images))
            # The run's monitor alone evaluates whitened features, not the label-free one added to it.
            size = self.read_size if whitens and monitor is self.monitor else None
            passes = (2 if untrained is None else 3) * (2 if size else 1)
            with _memory_for_knn(advice), extraction.evaluation_bar(f"final {monitor.title}", passes * count):
                judged = monitor.baselines(untrained, images, size)
                judged["backbone"] = monitor.backbone_accuracy(backbone, images, size)
                for name, measures in judged.items():
                    accuracies[name] |= measures
            queries = monitor.deciding.removesuffix("20") + "_queries"
            accuracies["backbone"][queries] = monitor.queries_of(images)
        std = extraction.inference_std(backbone, self.monitor.source, self.monitor.views)
        accuracies["backbone"]["inference_std"] = std
        return dict(accuracies)

    def _exported_whitening(self) -> bool:
        """Whether the exported backbone has whitening, which is left out where features do not vary."""
        card = backbone_file.read_card(Path(self.config.workdir or ""))
        return self.components.workers.from_chief("finishing" in card)

    def export(self, workdir: Path, metadata: dict) -> None:
        """Writes the backbone, with whitening unless finish=none, and projector and predictor beside it."""
        model = self.components.model
        heads = {name: getattr(model, name) for name in backbone_file.HEADS if getattr(model, name, None)}
        backbone, known = model.backbone, self.components.metadata
        record = {name: known[name] for name in ("pixels", "license") if name in known}
        if self.read_size is not None:
            backbone, whitened = self._whitened(backbone, self.read_size)
            record |= whitened
        backbone_file.export_networks({"backbone": backbone, **heads}, workdir, {**metadata, **record})

    @property
    def read_size(self) -> int | None:
        """Side in pixels of the images that the exported backbone takes by default; None with finish=none."""
        return read_size(self.config, self.components)

    def _whitened(self, backbone: keras.Model, size: int) -> tuple[keras.Model, dict[str, Any]]:
        """(the backbone with a layer that whitens its features, the model card's record of that layer).

        size: side in pixels of the images that the whitening is computed from.
        """
        source, views = self.components.source, finishing.reading_views(self.components.views, size)
        images = counted(min(source.size, finishing.FITTED_IMAGES), "image")
        log.warning("whitening computed from the features of %s, %d pixels wide", images, size)
        finished, fitted = finishing.finish_backbone(backbone, source, views, self.config.seed)
        if fitted is None:
            log.warning("whitening left out: all images have the same features")
            return finished, {}
        log.warning("whitening with shrinkage %g", fitted.shrinkage)
        if (rows := fitted.rows) <= (width := len(fitted.mean)):
            # Not for the terminal: the verdict says what to do where whitened features are the worse ones.
            log.info("%d images vary in fewer than the %d directions of features", rows, width)
        record = {
            "layer": whitening.NAME, "images": fitted.rows, "shrinkage": fitted.shrinkage, "size": size,
        }  # fmt: skip
        return finished, {"finishing": record}


def read_size(config: PretrainConfig, components: PretrainComponents) -> int | None:
    """Side in pixels of the images that the exported backbone takes by default; None with finish=none."""
    if config.finish == "none":
        return None
    size, fixed = components.views.augmentation.size, components.model.backbone.input_shape[1]
    default = size if config.trains_nothing else finishing.default_read_size(size)
    return config.read_size or fixed or default


def late_start(config: PretrainConfig, components: PretrainComponents) -> str:
    """A warning where hardly any learning rate is left from `start_epoch` on; empty otherwise."""
    highest = schedules.scaled(config.base_lr, config.batch_size)
    rate = components.model.optimizer.learning_rates(components.first_step)["lr"]
    if not config.start_epoch or rate >= LOW_RATE * highest:
        return ""
    return (
        f"start_epoch={config.start_epoch:g} of epochs={config.epochs:g}: the learning rate begins at "
        f"{rate:.2g}, {rate / highest:.1%} of its highest, so that the run learns little. Pass more epochs."
    )


@contextlib.contextmanager
def _memory_for_knn(advice: str) -> Iterator[None]:
    """Turns a lack of memory in the block into a UserError. advice: options of a rerun, for its message."""
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise UserError(f"the monitor's features do not fit into memory. Rerun with {advice}.") from error
