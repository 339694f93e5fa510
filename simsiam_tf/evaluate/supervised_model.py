"""A head on a backbone that is frozen (linear evaluation) or trained with it (fine-tuning)."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf import optimizers
from simsiam_tf.data import Augmentation, Source, Views, pipeline, pretraining
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate.heads import HEADS, HeadSpec
from simsiam_tf.evaluate.label_splits import all_labels
from simsiam_tf.features.extraction import forward
from simsiam_tf.methods import ViewModel
from simsiam_tf.methods.base import TRAINING
from simsiam_tf.nets.backbones import pooled
from simsiam_tf.optimizers import schedules


class SupervisedModel(ViewModel):
    """A backbone and a head, trained on one view of each image and its target.

    `model(images)` gives the head's outputs [B, outputs].

    Args:
        backbone: normalised images [B, H, W, C] → features [B, F].
        outputs: width of the head; the number of classes where targets are labels.
        frozen: whether the backbone computes as in inference, BN too, and none of its weights changes.
        head: a key of `HEADS`.
    """

    d = 1
    head_spec: HeadSpec

    def __init__(
        self, backbone: keras.Model, outputs: int, frozen: bool = True, head: str = "linear", **kwargs
    ) -> None:
        # Set before super().__init__, which asks for the metric's name.
        object.__setattr__(self, "head_spec", HEADS[head])
        super().__init__(pooled(backbone), **kwargs)
        self.frozen = frozen
        self.backbone.trainable = not frozen
        self.head = self.head_spec.build(outputs)
        self.head.build((None, backbone.output_shape[-1]))
        self.built = True

    @property
    def metric_name(self) -> str:
        return self.head_spec.metric_name

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        features = self.backbone(images, training=training and not self.frozen)
        return self.head(tf.cast(features, tf.float32))

    def objective(self, batch: dict) -> dict[str, tf.Tensor]:
        (x,) = batch["views"]
        if "target" not in batch:
            raise ValueError('The batch has no "target". Make batches by data.pretraining(…, targets=True).')
        outputs = self(x, training=TRAINING.get())
        loss = self.head_spec.loss(batch["target"], outputs)
        return {"loss": loss, "z": self.head_spec.metric(batch["target"], outputs)[:, None]}

    def metric(self, z: tf.Tensor) -> tf.Tensor:
        """Mean of the head's metric over a batch."""
        return tf.reduce_mean(z)

    def functional(self) -> keras.Model:
        """Backbone and head as one functional model: images → outputs."""
        return keras.Model(self.backbone.input, self.head(self.backbone.output), name="classifier")


def evaluate_model(
    model: SupervisedModel, source: Source, views: Views, workers: Workers | None = None
) -> dict[str, float]:
    """The head's test metrics on evaluation views of labelled images, as {"top1": …, "top5": …} in [0, 1].

    With up to five classes there is no "top5", which would always be 1.

    workers: processes among which the images are divided; None: this process alone.
    """
    team = workers or Workers(tf.distribute.get_strategy())
    encode, ids = forward(model), team.shard(np.arange(source.size))
    width, spec = model.head.compute_output_shape(model.backbone.output_shape)[-1], model.head_spec
    metrics = {name: f for name, f in spec.test_metrics.items() if width > spec.always_one.get(name, 0)}
    assert source.labels is not None
    targets, sums, at = source.labels[ids], np.zeros(len(metrics)), 0
    for images in pipeline.evaluation_views(source, views, ids):
        outputs = encode(images).numpy()
        batch = targets[at : at + len(outputs)]
        sums += [metric(batch, outputs).sum() for metric in metrics.values()]
        at += len(outputs)
    means = team.all_gather(sums[None]).sum(axis=0) / source.size
    return dict(zip(metrics, means.tolist(), strict=True))


def train_classifier(
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
) -> tuple[SupervisedModel, dict[str, float]]:
    """Linear evaluation or fine-tuning by Keras' `fit`, for notebooks.

    `training.supervised.run_supervised` does the same with checkpoints and records.

    Args:
        backbone, frozen: as for `SupervisedModel`.
        train, test: labelled sources of the same classes.
        augmentation: its size, crops, flips, turns and normalisation are used; its changes of colours and its
            blur are not.
        epochs: passes over the training images, in whole batches.
        batch_size: images per step.
        optimizer: when None, LARS with base rate 10 if frozen, else SGD with base rate 0.02; either rate is
            multiplied by batch_size/256 and decays on a cosine.
        seed: seed of the head's weights, the order of the images and their crops.
        **fit: arguments of `fit`, such as callbacks or verbose.

    Returns:
        The model, and its metrics on the test images (`evaluate_model`).
    """
    augmentation = augmentation.with_crop_and_flip_alone()
    dataset = pretraining(train, augmentation, batch_size, views=1, seed=seed, targets=True)
    if optimizer is None:
        make, rate = (optimizers.LARS, 10.0) if frozen else (optimizers.SGD, 0.02)
        optimizer = make(schedules.cosine(schedules.scaled(rate, batch_size), epochs * len(dataset)))
    keras.utils.set_random_seed(seed)
    classes = 1 + int(max(all_labels(train).max(), all_labels(test).max()))
    model = SupervisedModel(backbone, classes, frozen)
    model.compile(optimizer)
    model.fit(dataset, epochs=epochs, **fit)
    return model, evaluate_model(model, test, Views(augmentation, count=1))
