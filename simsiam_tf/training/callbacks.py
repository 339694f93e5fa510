"""Keras callbacks that evaluate, for `fit` and for the loop."""

from __future__ import annotations

from simsiam_tf.data import Source, Views, open_source, pipeline
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate.knn_monitor import Monitor, monitor_of
from simsiam_tf.evaluate.label_free import LabelFreeMonitor
from simsiam_tf.evaluate.supervised_model import SupervisedModel, evaluate_model
from simsiam_tf.features import extraction
from simsiam_tf.loop.task import Evaluator


class Monitoring(Evaluator):
    """Adds a monitor's measures of the backbone to the logs of every n-th epoch.

    Also "inference_std", which is near 0 where all images have nearly the same features at inference
    (`extraction.inference_std`).

    Args:
        monitor: such as a `Monitor`.
        every: n; 0 for never.
        images: about how many of the monitor's images to use; all when None.
    """

    def __init__(
        self, monitor: Monitor | LabelFreeMonitor, every: int = 1, images: int | None = None
    ) -> None:
        super().__init__(every)
        self.monitor, self.images = monitor, images

    def evaluate(self) -> dict[str, float]:
        assert self.model is not None
        backbone, monitor = self.model.backbone, self.monitor
        std = extraction.inference_std(backbone, monitor.source, monitor.views)
        return {**monitor.backbone_accuracy(backbone, self.images), "inference_std": std}


class KNN(Monitoring):
    """Adds the backbone's kNN accuracy, "knn20" and "knn200" in [0, 1], to the logs of every n-th epoch.

    Args:
        monitor: a labelled data set, such as "fashion_mnist", or a `Monitor`.
        augmentation: for a data set, a key of `data.AUGMENTATIONS`; when None, the one that suits the set.
        every: n; 0 for never.
        images: about how many of the monitor's images to use; all when None.
        **changes: fields of the augmentation to replace, such as size=96.
    """

    def __init__(
        self,
        monitor: str | Monitor,
        augmentation: str | None = None,
        every: int = 1,
        images: int | None = None,
        **changes,
    ) -> None:
        monitor = monitor_of(monitor, augmentation, **changes) if isinstance(monitor, str) else monitor
        super().__init__(monitor, every, images)


class LabelFree(Monitoring):
    """Adds measures without labels to the logs: see `LabelFreeMonitor.accuracy`.

    Args:
        data: a source, or a specification as for `open_source`.
        augmentation, every, images, **changes: as for `KNN`.
    """

    def __init__(
        self,
        data: str | Source,
        augmentation: str | None = None,
        every: int = 1,
        images: int | None = None,
        **changes,
    ) -> None:
        source = open_source(data)
        views = Views(pipeline.augmentation_of(source, augmentation, **changes))
        super().__init__(LabelFreeMonitor(source, views), every, images)


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
