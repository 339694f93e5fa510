"""Keras callbacks that evaluate or diagnose, for `fit` and for the loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import keras
import numpy as np

from simsiam_tf.config import METHODS, loss_kind, with_method_defaults
from simsiam_tf.data import Augmentation, Source, Views, open_source, pipeline
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate import diagnosis as diagnoses
from simsiam_tf.evaluate.knn_monitor import Monitor, monitor_of
from simsiam_tf.evaluate.label_free import LabelFreeMonitor
from simsiam_tf.evaluate.supervised_model import SupervisedModel, evaluate_model
from simsiam_tf.features import extraction
from simsiam_tf.loop.task import Evaluator
from simsiam_tf.methods.base import TRAINING
from simsiam_tf.methods.metrics import effective_rank
from simsiam_tf.nets import batch_norm
from simsiam_tf.runtime import progress


def views_for_model(
    model: Any, source: Source, augmentation: str | Augmentation | None, changes: Mapping[str, Any]
) -> Views:
    """Views of a source for a model in training.

    When `augmentation` is None, it is that of the training's data if they have one, and the size is that of
    the training's views.

    model: a `ViewModel` in `fit` or in a run. augmentation, changes: as for `KNN`.
    """
    if model.view_size and not isinstance(augmentation or model.augmentation, Augmentation):
        changes = {"size": model.view_size, **changes}
    return Views(pipeline.augmentation_of(source, augmentation or model.augmentation, **changes))


def check_view_size(model: Any, views: Views) -> None:
    """Raises ValueError if the backbone takes images of one size alone, and the views have another."""
    size, fixed = views.augmentation.size, model.backbone.input_shape[1]
    if fixed not in (None, size):
        raise ValueError(
            f"size={size}: the backbone takes images of {fixed} pixels alone. Pass the callback size={fixed}."
        )


class Monitoring(Evaluator):
    """Adds a monitor's measures of the backbone to the logs of every n-th epoch.

    Also "inference_std", which is near 0 where all images have nearly the same features at inference
    (`extraction.inference_std`).

    Args:
        monitor: a `Monitor` or a `LabelFreeMonitor`.
        every: n; 0 for never.
        images: about how many of the monitor's images to use; all when None.
        views_given: (augmentation, changes) for `views_for_model`, which replaces the monitor's views when
            training begins; None: they stay.
    """

    def __init__(
        self,
        monitor: Monitor | LabelFreeMonitor,
        every: int = 1,
        images: int | None = None,
        views_given: tuple[str | Augmentation | None, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(every)
        self.monitor, self.images, self.views_given = monitor, images, views_given

    def on_train_begin(self, logs: dict | None = None) -> None:
        if self.views_given is not None:
            views = views_for_model(self.model, self.monitor.source, *self.views_given)
            self.monitor = dataclasses.replace(self.monitor, views=views)
        check_view_size(self.model, self.monitor.views)

    def evaluate(self) -> dict[str, float]:
        assert self.model is not None
        backbone, monitor = self.model.backbone, self.monitor
        std = extraction.inference_std(backbone, monitor.source, monitor.views)
        return {**monitor.backbone_accuracy(backbone, self.images), "inference_std": std}


class KNN(Monitoring):
    """Adds the backbone's kNN accuracy, "knn20" and "knn200" in [0, 1], to the logs of every n-th epoch.

    Args:
        monitor: a labelled data set, such as "fashion_mnist", or a `Monitor`.
        augmentation: for a data set, a key of `data.AUGMENTATIONS` or an `Augmentation`. When None, that of
            `data.pretraining`, on which the model is trained; on other data, the one that suits the set, in
            the size of the training's views.
        every: n; 0 for never.
        images: about how many of the monitor's images to use; all when None.
        **changes: fields of the augmentation to replace, such as size=96.

    Raises:
        UserError: there is no such data set, or it has no labels.
        ValueError: when training begins, if the backbone takes images of another size alone.
    """

    def __init__(
        self,
        monitor: str | Monitor,
        augmentation: str | Augmentation | None = None,
        every: int = 1,
        images: int | None = None,
        **changes,
    ) -> None:
        views_given = None
        if isinstance(monitor, str):
            views_given, monitor = (augmentation, changes), monitor_of(monitor, augmentation, **changes)
        super().__init__(monitor, every, images, views_given)


class LabelFree(Monitoring):
    """Adds measures without labels to the logs: see `LabelFreeMonitor.accuracy`.

    Args:
        data: a source, or a specification as for `open_source`.
        augmentation, every, images, **changes: as for `KNN`.

    Raises:
        UserError: there is no such data set.
        ValueError: as for `KNN`.
    """

    def __init__(
        self,
        data: str | Source,
        augmentation: str | Augmentation | None = None,
        every: int = 1,
        images: int | None = None,
        **changes,
    ) -> None:
        source = open_source(data)
        views = Views(pipeline.augmentation_of(source, augmentation, **changes))
        super().__init__(LabelFreeMonitor(source, views), every, images, (augmentation, changes))


class Diagnosis(keras.callbacks.Callback):
    """Diagnoses a training by `fit` in the way of the command `pretrain` (docs/learning.md), with advice.

    Prints a line when the diagnosis changes. Adds a record after every n-th step: loss and std of the steps
    since the last record, and the effective rank of the projections z of some images, in inference mode.

    Args:
        data: images like those of the training: a source, or a specification as for `open_source`.
        augmentation, **changes: as for `KNN`.
        every: n.
        images: number of images for the effective rank.

    Attributes:
        diagnosis: `evaluate.diagnosis.Diagnosis`, with name, reason and advice.
        records: the records, the oldest first.
    """

    def __init__(
        self,
        data: str | Source,
        augmentation: str | Augmentation | None = None,
        every: int = 20,
        images: int = 256,
        **changes,
    ) -> None:
        super().__init__()
        self._source, self._views_given = open_source(data), (augmentation, changes)
        pipeline.augmentation_of(self._source, augmentation, **changes)  # refuses unknown fields
        self._ids = np.unique(np.linspace(0, self._source.size - 1, images).astype(int))
        self.every, self.records = every, []
        self.diagnosis = diagnoses.diagnose([], 1)
        self._steps: list[dict[str, float]] = []

    def on_train_begin(self, logs: dict | None = None) -> None:
        model, params = cast(Any, self.model), self.params or {}
        views = views_for_model(model, self._source, *self._views_given)
        check_view_size(model, views)
        self._images = [*extraction.evaluation_views(self._source, views, self._ids)]
        self.loss_type, self.options = method_of_model(model)
        self._total = (params.get("epochs") or 1) * (params.get("steps") or 1)
        self._first = int(model.optimizer.iterations.numpy())

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        # Keras' logs are means over the epoch: the numbers and sums of its steps give those of each step.
        self._seen, self._sums = 0, {"loss": 0.0, "std": 0.0}

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if not logs or not {"loss", "std"} <= set(logs):
            return
        count, before = batch + 1, dict(self._sums)
        self._sums = {name: count * float(logs[name]) for name in before}
        new = count - self._seen  # above 1 where a call of the graph runs several steps
        self._steps.append({name: (self._sums[name] - before[name]) / new for name in before})
        self._seen = count
        step = int(cast(Any, self.model).optimizer.iterations.numpy())
        if len(self._steps) * new >= self.every or step - self._first >= self._total:
            self._add_record(step)

    def _add_record(self, step: int) -> None:
        losses, stds = ([values[name] for values in self._steps] for name in ("loss", "std"))
        self._steps = []
        model: Any = self.model
        token = TRAINING.set(False)
        try:
            z = np.concatenate([model.f(x).numpy() for x in self._images])
        finally:
            TRAINING.reset(token)
        self.records.append({
            "step": step, "loss": float(np.mean(losses)), "loss_spread": float(np.std(losses)),
            "std": float(np.mean(stds)), "rank": effective_rank(z),
        })  # fmt: skip
        total = self._first + self._total
        diagnosis = diagnoses.diagnose(self.records, total, self.loss_type, self.options)
        if diagnosis.healthy:
            features = [model.backbone(x, training=False).numpy() for x in self._images]
            std = extraction.normalised_std(np.concatenate(features))
            updates = (step - self._first) * getattr(model, "view_count", 1)
            unsettled = batch_norm.unsettled(model.backbone, updates)
            diagnosis = diagnoses.check_features(diagnosis, self.records, total, std, unsettled)
        former, self.diagnosis = self.diagnosis, diagnosis
        if diagnosis.name != former.name:
            progress.say(f"step {step}: {diagnosis}")


def method_of_model(model: Any) -> tuple[str, dict[str, Any]]:
    """(key of `diagnosis.LIMITS`, options for `advice`) of a method's model; else ("other", {})."""
    path = f"{type(model).__module__}:{type(model).__name__}"
    name = next((n for n, row in METHODS.items() if path in (row.model, *row.variants.values())), None)
    if name is None:
        return "other", {}
    options = with_method_defaults({**model._constructor.arguments, "method": name})
    return loss_kind(options), options


class Accuracy(Evaluator):
    """Adds a `SupervisedModel`'s test metrics, such as "top1" and "top5", to the logs of every n-th epoch.

    Args:
        source: labelled test images.
        views: size and normalisation of the images.
        every: n; 0 for never.
        workers: processes among which the images are divided; None: this one alone.
    """

    def __init__(self, source: Source, views: Views, every: int = 1, workers: Workers | None = None) -> None:
        super().__init__(every)
        self.source, self.views, self.workers = source, views, workers

    def evaluate(self) -> dict[str, float]:
        assert isinstance(self.model, SupervisedModel)
        return evaluate_model(self.model, self.source, self.views, self.workers)
