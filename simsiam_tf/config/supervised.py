"""Options of the trainings with labels: linear evaluation and fine-tuning."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

from simsiam_tf.config.evaluation import LabelledConfig
from simsiam_tf.config.fields import BIG, option
from simsiam_tf.config.run import RunConfig, run_option
from simsiam_tf.config.tuning import TuningConfig
from simsiam_tf.runtime.errors import UserError


def batch_option(most: int) -> Any:
    """The option `batch_size`, whose default `SupervisedConfig.with_batch_size` chooses."""
    text = (
        f"images in a step, over all replicas; by default {most:,}, or, where there are fewer training "
        "images, the largest power of two that is not above their number"
    )
    return run_option("batch_size", None, help=text)


@dataclasses.dataclass(frozen=True)
class SupervisedConfig(RunConfig, LabelledConfig):
    """Options of both trainings. `data`, `image_size` and `flip_p` are as in the pre-training when None."""

    INAPPLICABLE = (*RunConfig.INAPPLICABLE, *LabelledConfig.INAPPLICABLE)
    MOST_IN_BATCH: ClassVar[int] = 4096  # by default

    seed: int = option(
        0, "seed of the initial weights, the order of images, the crops and the flips", "Run", limits=(0, BIG)
    )
    labels: float = option(
        1.0,
        "share of the training images of every class to learn from, at least one image of each class. Every "
        "seed takes the same images, and a larger share contains a smaller one",
        "Images",
    )
    crop_area: float = option(
        0.08,
        "smallest share of the image that a training crop covers; 1: no random crops",
        "Views",
        limits=(0.01, 1.0),
    )
    flip_p: float | None = option(
        None, "probability of a horizontal flip; by default as in the pre-training", limits=(0, 1)
    )

    epochs: float = run_option("epochs", 90.0)
    batch_size: int = batch_option(4096)
    base_lr: float = run_option("base_lr", 0.02, limits=(0, 1e5))
    weight_decay: float = run_option("weight_decay", 0.0)
    eval_every: int | None = option(
        None,
        "epochs from one evaluation on the test images to the next; 0: only at the end; by default, "
        "evaluations take about 1 % of the time",
        "Optimisation",
        resumable=True,
        limits=(0, BIG),
    )

    def validate(self) -> Self:
        super().validate()
        if not 0 < self.labels <= 1:
            raise UserError(f"labels={self.labels}: must be above 0 and at most 1, as in labels=0.1.")
        return self

    def with_batch_size(self, images: int, replicas: int = 1) -> Self:
        """The configuration with its default batch size for so many training images, if none was given."""
        if self.batch_size is not None:
            return self
        batch_size = min(self.MOST_IN_BATCH, 2 ** (max(images, 2).bit_length() - 1))
        return dataclasses.replace(self, batch_size=max(1, batch_size // replicas) * replicas)


@dataclasses.dataclass(frozen=True)
class LinearConfig(SupervisedConfig):
    """Linear evaluation; the defaults are the paper's (Sec. 3 and its appendix)."""

    optimizer: str = option(
        "lars",
        "lars, with trust coefficient 0.001 and no clipping; or sgd, with which the paper uses base_lr=30 "
        "and batch_size=256",
        choices=("lars", "sgd"),
    )


@dataclasses.dataclass(frozen=True)
class FinetuneConfig(TuningConfig, SupervisedConfig):
    """Fine-tuning: the backbone, or its last layers, are trained together with a classifier."""

    INAPPLICABLE = (*SupervisedConfig.INAPPLICABLE, *TuningConfig.INAPPLICABLE)
    MOST_IN_BATCH = 256

    init: str = option(
        "weights",
        "start the backbone from `weights`, or, for comparison, from random weights of the same architecture",
        choices=("weights", "random"),
    )
    epochs: float = run_option("epochs", 50.0)
    batch_size: int = batch_option(256)
    head_lr_factor: float = option(
        10.0, "learning rate of the classifier, as a multiple of the backbone's", limits=(0, 1e5)
    )
    weight_decay: float = run_option("weight_decay", 1e-4)
