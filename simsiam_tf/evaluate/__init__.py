"""Evaluations of a backbone: kNN, linear probes, linear evaluation and fine-tuning, diagnosis."""

from __future__ import annotations

import dataclasses

import keras

from simsiam_tf import data
from simsiam_tf.evaluate.heads import HEADS, HeadSpec
from simsiam_tf.evaluate.knn_monitor import Monitor, open_monitor
from simsiam_tf.evaluate.linear_probe import logistic_probe, sgd_probe
from simsiam_tf.evaluate.supervised_model import SupervisedModel, evaluate_model, train_classifier
from simsiam_tf.features import knn_accuracy


def knn(backbone: keras.Model, data_spec: str, augmentation: str | None = None, **changes) -> dict:
    """kNN accuracy of a backbone: {"knn20": …, "knn200": …} in [0, 1].

    Args:
        backbone: images → features.
        data_spec: a labelled set as for `data`; its training split votes on its test split.
        augmentation: as in `data.pretraining`.
        **changes: fields of the augmentation to replace, such as size=96.
    """
    source = data.open_source(data_spec)
    chosen = data.AUGMENTATIONS[augmentation or data.augmentation_for(source)]
    views = data.Views(dataclasses.replace(chosen, **changes))
    monitor = open_monitor(data_spec, "auto", views, source, data_spec)
    assert monitor is not None
    return monitor.backbone_accuracy(backbone)


__all__ = [
    "HEADS", "HeadSpec", "Monitor", "SupervisedModel", "evaluate_model", "knn", "knn_accuracy",
    "logistic_probe", "open_monitor", "sgd_probe", "train_classifier",
]  # fmt: skip
