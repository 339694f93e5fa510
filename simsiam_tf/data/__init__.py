"""Images in, views out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tensorflow as tf

from simsiam_tf.data import pipeline
from simsiam_tf.data.augment.eval_transform import preprocess
from simsiam_tf.data.augment.views import AUGMENTATIONS, Augmentation, Views
from simsiam_tf.data.sources.base import Source, from_arrays, subset
from simsiam_tf.data.sources.open_source import open_source


def augmentation_for(source: Source) -> str:
    """The augmentation that suits a source: by its channels, and by its size if it has one."""
    if source.channels == 1:
        return "grayscale"
    images = getattr(source, "images", None)
    return "cifar" if images is not None and images.shape[1] <= 64 else "imagenet"


def pretraining(
    data: str | Path | Source,
    augmentation: str | Augmentation | None = None,
    batch_size: int = 256,
    views: int = 2,
    seed: int = 0,
    first_epoch: int = 0,
    targets: bool = False,
    **changes,
) -> tf.data.Dataset:
    """Batches of views for `model.fit`; every iteration is a new epoch.

    `fit` begins with the epoch that the model's optimizer has come to, `evaluate` always with the first.

    Args:
        data: a specification as for `data`, or a source.
        augmentation: a key of `AUGMENTATIONS` or a `Augmentation`; chosen by the source when None.
        batch_size: images a step.
        views: views of each image (4 for `symmetry="asymmetric_2x"`).
        seed: of order and draws.
        first_epoch: that the first iteration gives, for loops of your own.
        targets: whether batches hold "target", the labels of the images, beside "views" and "index".
        **changes: fields of the augmentation to replace, for example size=96.
    """
    source = open_source(data) if isinstance(data, str | Path) else data
    augmentation = augmentation or augmentation_for(source)
    augmentation = AUGMENTATIONS[augmentation] if isinstance(augmentation, str) else augmentation
    augmentation = dataclasses.replace(augmentation, **changes)
    return pipeline.pretraining(source, Views(augmentation, views), batch_size, seed, first_epoch, targets)


__all__ = [
    "AUGMENTATIONS", "Augmentation", "Source", "Views", "from_arrays", "open_source",
    "preprocess", "pretraining", "subset",
]  # fmt: skip
