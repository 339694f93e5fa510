"""Keras callbacks that evaluate, for `fit` and for the loop."""

from __future__ import annotations

import keras

from simsiam_tf.data import Source, Views
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate.knn_monitor import Monitor, monitor_of
from simsiam_tf.evaluate.supervised_model import SupervisedModel, evaluate_model


class KNN(keras.callbacks.Callback):
    """Adds the backbone's kNN accuracy, "knn20" and "knn200" in [0, 1], to the logs of every n-th epoch.

    Args:
        monitor: a labelled data set, such as "fashion_mnist", or a `Monitor`.
        augmentation: as in `data.pretraining`; when None, the one that suits the data set.
        every: n; 0 for never.
        images: about how many images to use; all when None.
        **changes: fields of the augmentation to replace, such as size=96.

    latest: the accuracies of the last epoch; empty where it had no evaluation.
    """

    def __init__(
        self,
        monitor: str | Monitor,
        augmentation: str | None = None,
        every: int = 1,
        images: int | None = None,
        **changes,
    ) -> None:
        super().__init__()
        self.monitor = monitor_of(monitor, augmentation, **changes) if isinstance(monitor, str) else monitor
        self.every, self.images = every, images
        self.latest: dict[str, float] = {}

    def due(self, epochs: int) -> bool:
        """Whether an evaluation follows epoch number `epochs`, counted from 1."""
        return self.monitor is not None and self.every > 0 and epochs % self.every == 0

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.latest = {}
        if self.monitor is not None and self.due(epoch + 1):
            assert self.model is not None
            self.latest = self.monitor.backbone_accuracy(self.model.backbone, self.images)
        if logs is not None:
            logs.update(self.latest)


class Accuracy(keras.callbacks.Callback):
    """Adds a `SupervisedModel`'s test metrics, such as "top1" and "top5", to the logs of every n-th epoch.

    Args:
        source: labelled images.
        views: size and normalisation of the images.
        every: n; 0 for never.
        workers: processes among which the images are divided; None: this one alone.

    latest: as in `KNN`.
    """

    def __init__(self, source: Source, views: Views, every: int = 1, workers: Workers | None = None) -> None:
        super().__init__()
        self.source, self.views, self.every, self.workers = source, views, every, workers
        self.latest: dict[str, float] = {}

    def due(self, epochs: int) -> bool:
        """Whether an evaluation follows epoch number `epochs`, counted from 1."""
        return self.every > 0 and epochs % self.every == 0

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.latest = {}
        if self.due(epoch + 1):
            assert isinstance(self.model, SupervisedModel)
            self.latest = evaluate_model(self.model, self.source, self.views, self.workers)
        if logs is not None:
            logs.update(self.latest)
