"""A linear classifier on a backbone, which is frozen (linear evaluation) or trained with it (fine-tuning)."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf import optimizers
from simsiam_tf.data import Augmentation, Source, Views, pipeline
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.features.extraction import forward
from simsiam_tf.methods import ViewModel
from simsiam_tf.optimizers import schedules

TOP = (1, 5)


class Classifier(ViewModel):
    """Cross-entropy of a linear layer on backbone features, from one view of each image.

    The head starts at N(0, 0.01) with zero biases. `model(images)` gives logits [B, classes].

    Args:
        backbone: normalised images → features [B, F].
        labels: int [N], by example index.
        classes: how many there are.
        frozen: the backbone computes as in inference, BN too, and none of its weights changes.
    """

    metric_name = "accuracy"
    d = 1

    def __init__(
        self, backbone: keras.Model, labels: np.ndarray, classes: int, frozen: bool = True, **kwargs
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.frozen = frozen
        backbone.trainable = not frozen
        normal = keras.initializers.RandomNormal(stddev=0.01)
        self.head = keras.layers.Dense(classes, kernel_initializer=normal, dtype="float32", name="head")
        self.head.build((None, backbone.output_shape[-1]))
        self._labels = np.asarray(labels, np.int64)
        self.built = True

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        features = self.backbone(images, training=training and not self.frozen)
        return self.head(tf.cast(features, tf.float32))

    def objective(self, batch: dict) -> dict[str, tf.Tensor]:
        (x,) = batch["views"]
        labels = tf.gather(tf.constant(self._labels), batch["index"])
        logits = self(x, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        hits = tf.cast(tf.argmax(logits, axis=1) == labels, tf.float32)
        return {"loss": loss, "z": hits[:, None]}

    def test_step(self, data: dict) -> dict[str, tf.Tensor]:
        """Refused: an index names a training image, whose label would be taken for another's."""
        raise ValueError("A Classifier knows the labels of its training images alone. Use evaluate.accuracy.")

    def metric(self, z: tf.Tensor) -> tf.Tensor:
        """Share of the batch's views that are told right."""
        return tf.reduce_mean(z)

    def whole(self) -> keras.Model:
        """Backbone and head as one functional model: images → logits."""
        return keras.Model(self.backbone.input, self.head(self.backbone.output), name="classifier")


def accuracy(model: Classifier, source: Source, views: Views, workers: Workers | None = None) -> dict:
    """{"top1": …, "top5": …} in [0, 1] on the centre views of a labelled source.

    workers: that share out the images; None: this process alone.
    """
    team = workers or Workers(tf.distribute.get_strategy())
    ids, encode, right = team.shard(np.arange(source.size)), forward(model), np.zeros(len(TOP))
    truth, at = source.labels[ids], 0
    for images in pipeline.centred(source, views, ids):
        logits = encode(images).numpy()
        place = _place(logits, truth[at : at + len(logits)])
        right += [(place < k).sum() for k in TOP]
        at += len(logits)
    total = team.all_gather(right[None]).sum(axis=0) / source.size
    return {f"top{k}": float(share) for k, share in zip(TOP, total, strict=True)}


def _place(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How many classes come before the true one; of equal logits, all others do."""
    own = logits[np.arange(len(truth)), truth][:, None]
    return (logits >= own).sum(axis=1) - 1


def learned(
    backbone: keras.Model,
    train: Source,
    test: Source,
    augmentation: Augmentation,
    epochs: int = 10,
    batch_size: int = 256,
    optimizer: keras.optimizers.Optimizer | None = None,
    frozen: bool = True,
    seed: int = 0,
    **fit,
) -> tuple[Classifier, dict[str, float]]:
    """Linear evaluation or fine-tuning by Keras' `fit`, for notebooks; `supervised.run` resumes and records.

    Args:
        backbone: normalised images → features; trained itself where not `frozen`.
        train, test: labelled sources of the same classes.
        augmentation: size, crops, flip and normalisation; its colours are left alone.
        epochs: passes over the images, by whole batches.
        batch_size: images a step.
        optimizer: LARS on a cosine from 10 when None, SGD from 0.02 where not frozen.
        seed: of the head's weights, order and crops.
        **fit: of `fit`, such as callbacks or verbose.

    Returns:
        The classifier, and its {"top1": …, "top5": …} on the test images.
    """
    views = Views(augmentation.with_crop_and_flip_alone(), count=1)
    dataset = pipeline.pretraining(train, views, batch_size, seed)
    if optimizer is None:
        kind, rate = (optimizers.LARS, 10.0) if frozen else (optimizers.SGD, 0.02)
        optimizer = kind(schedules.cosine(schedules.scaled(rate, batch_size), epochs * len(dataset)))
    keras.utils.set_random_seed(seed)
    classes = 1 + int(max(np.max(train.labels), np.max(test.labels)))
    model = Classifier(backbone, train.labels[:], classes, frozen)
    model.compile(optimizer)
    model.fit(dataset, epochs=epochs, **fit)
    return model, accuracy(model, test, views)
