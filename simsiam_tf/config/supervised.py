"""Options of the trainings with labels: linear evaluation and fine-tuning."""

from __future__ import annotations

import dataclasses

from simsiam_tf.config.evaluation import LabelledConfig
from simsiam_tf.config.fields import BIG, option
from simsiam_tf.config.run import RunConfig, check_epochs
from simsiam_tf.runtime.errors import UserError

LR = "highest learning rate for a batch of 256, multiplied by batch_size/256; it decays on a cosine"
BATCH_SIZE = "images in a step, over all replicas"
EPOCHS = "passes over the training images"


@dataclasses.dataclass(frozen=True)
class SupervisedConfig(RunConfig, LabelledConfig):
    """Options of both trainings. The backbone's metadata fill in values None."""

    INAPPLICABLE = (*RunConfig.INAPPLICABLE, *LabelledConfig.INAPPLICABLE)

    seed: int = option(
        0, "seed of the head's initial weights, the order of images and the crops", "Optimisation",
        limits=(0, BIG),
    )  # fmt: skip
    labels: float = option(
        1.0,
        "share of the training images to learn from, the same in every class. Every seed takes the same "
        "images, and a larger share contains a smaller one",
        "Images",
    )
    crop_area: float = option(
        0.08,
        "smallest share of the image that a training crop covers; 1: images are only resized",
        "Views",
        limits=(0.01, 1.0),
    )
    flip_p: float | None = option(
        None, "probability of a horizontal flip; by default as in the pre-training", limits=(0, 1)
    )

    epochs: float = option(90.0, EPOCHS, "Optimisation")
    batch_size: int = option(4096, BATCH_SIZE, "Optimisation", limits=(2, 2**20))
    base_lr: float = option(0.02, LR, limits=(0, 1e5))
    warmup_epochs: float = option(
        0.0, "epochs at the start in which the learning rate rises from 0", limits=(0, BIG)
    )
    momentum: float = option(0.9, "momentum of the optimizer", limits=(0, 0.9999))
    weight_decay: float = option(0.0, "L2 penalty on all trained weights", limits=(0, 1))
    eval_every: int | None = option(
        None,
        "epochs from one evaluation on the test images to the next; 0: only at the end; by default as often "
        "as about 1 % of the time allows",
        free=True,
        limits=(0, BIG),
    )

    def validate(self) -> SupervisedConfig:
        """Returns the configuration. Raises UserError for the first invalid value."""
        super().validate()
        check_epochs(self)
        if not 0 < self.labels <= 1:
            raise UserError(f"labels={self.labels}: must be above 0 and at most 1, as in labels=0.1.")
        return self


@dataclasses.dataclass(frozen=True)
class LinearConfig(SupervisedConfig):
    """Linear evaluation; the defaults are the paper's (Sec. 3 and its appendix)."""

    optimizer: str = option(
        "lars",
        "lars, with trust coefficient 0.001 and no clipping, or sgd, in the paper with base_lr=30 and "
        "batch_size=256",
        choices=("lars", "sgd"),
    )


@dataclasses.dataclass(frozen=True)
class FinetuneConfig(SupervisedConfig):
    """Fine-tuning of the whole network."""

    init: str = option(
        "weights",
        "start the backbone from `weights`, or, for comparison, from random weights of the same architecture",
        choices=("weights", "random"),
    )
    epochs: float = option(50.0, EPOCHS, "Optimisation")
    batch_size: int = option(256, BATCH_SIZE, "Optimisation", limits=(2, 2**20))
    base_lr: float = option(0.02, LR, limits=(0, 1e5))
    head_lr_factor: float = option(
        10.0, "the classifier on the backbone gets the learning rate times this", limits=(0, 1e5)
    )
    weight_decay: float = option(1e-4, "L2 penalty on all weights", limits=(0, 1))
