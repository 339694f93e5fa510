"""Evaluations of a backbone (kNN, linear, fine-tuned, without labels); diagnosis and verdict of a run."""

from __future__ import annotations

import keras

from simsiam_tf.data import Augmentation
from simsiam_tf.evaluate.heads import HEADS, HeadSpec
from simsiam_tf.evaluate.knn_monitor import Monitor, monitor_of, open_monitor
from simsiam_tf.evaluate.label_free import LabelFreeMonitor, judge
from simsiam_tf.evaluate.linear_probe import logistic_probe, sgd_probe
from simsiam_tf.evaluate.supervised_model import SupervisedModel, evaluate_model, train_classifier
from simsiam_tf.features import knn_accuracy


def knn(
    backbone: keras.Model, data_spec: str, augmentation: str | Augmentation | None = None, **changes
) -> dict[str, float]:
    """kNN accuracy of a backbone on a labelled set: {"knn20": …, "knn200": …} in [0, 1].

    Args:
        backbone: normalised images [B, H, W, C] → features [B, F].
        data_spec: the set, as for `open_source`; its training images vote for its test images.
        augmentation, **changes: as for `monitor_of`. Without an `Augmentation`, views have the size of the
            backbone's images where that is fixed.

    Raises:
        UserError: there is no such set, or it has no labels.
    """
    if (size := backbone.input_shape[1]) and not isinstance(augmentation, Augmentation):
        changes = {"size": size, **changes}
    return monitor_of(data_spec, augmentation, **changes).backbone_accuracy(backbone)


__all__ = [
    "HEADS", "HeadSpec", "LabelFreeMonitor", "Monitor", "SupervisedModel", "evaluate_model", "judge", "knn",
    "knn_accuracy", "logistic_probe", "monitor_of", "open_monitor", "sgd_probe", "train_classifier",
]  # fmt: skip
