"""What a frozen backbone is worth."""

from __future__ import annotations

import dataclasses

import keras

from simsiam_tf import data
from simsiam_tf.evaluate.classifier import Classifier, accuracy, learned
from simsiam_tf.evaluate.embedding import Embeddings, embed
from simsiam_tf.evaluate.features import extract
from simsiam_tf.evaluate.monitor import Monitor, open_monitor
from simsiam_tf.evaluate.neighbours import knn_accuracy, nearest
from simsiam_tf.evaluate.probe import descent, logistic
from simsiam_tf.evaluate.query import of_file


def knn(backbone: keras.Model, data_spec: str, recipe: str | None = None, **changes) -> dict:
    """kNN accuracy of a backbone: {"knn20": …, "knn200": …} in [0, 1].

    Args:
        backbone: images → features.
        data_spec: a labelled set as for --data; its training split votes on its test split.
        recipe: as in `data.pretraining`.
        **changes: fields of the recipe to replace, such as size=96.
    """
    source = data.open_source(data_spec)
    chosen = data.RECIPES[recipe or data.recipe_for(source)]
    views = data.Views(dataclasses.replace(chosen, **changes))
    monitor = open_monitor(data_spec, "auto", views, source, data_spec)
    return monitor.of_backbone(backbone)


__all__ = [
    "Classifier", "Embeddings", "Monitor", "accuracy", "descent", "embed", "extract", "knn", "knn_accuracy",
    "learned", "logistic", "nearest", "of_file", "open_monitor",
]  # fmt: skip
