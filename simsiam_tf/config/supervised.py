"""Configurations of the runs that learn from labels: linear evaluation and fine-tuning."""

from __future__ import annotations

import dataclasses

from simsiam_tf.config.evaluation import LabelledConfig
from simsiam_tf.config.fields import BIG, option
from simsiam_tf.config.run import RunConfig, check_epochs
from simsiam_tf.runtime.errors import UserError

LR = "learning rate for 256 images; times batch_size/256, decayed on a cosine"


@dataclasses.dataclass(frozen=True)
class SupervisedConfig(RunConfig, LabelledConfig):
    """What they have in common. None is resolved by the backbone's card."""

    RANGES = (
        *RunConfig.RANGES, *LabelledConfig.RANGES,
        ("crop_area", 0.01, 1.0), ("flip_p", 0, 1), ("base_lr", 0, 1e5), ("momentum", 0, 0.9999),
        ("weight_decay", 0, 1), ("warmup_epochs", 0, BIG), ("eval_every", 0, BIG), ("batch_size", 2, 2**20),
    )  # fmt: skip
    NO_EFFECT = (*RunConfig.NO_EFFECT, *LabelledConfig.NO_EFFECT)

    seed: int = option(0, "of the head's initial weights, order and augmentation", "Optimisation")
    labels: float = option(
        1.0,
        "share of the training images to learn from, of every class: the same ones for every seed, and a "
        "larger share contains a smaller one",
        "Images",
    )
    crop_area: float = option(
        0.08, "smallest share of the image that a training view covers; 1: resized only", "Views"
    )
    flip_p: float | None = option(None, "probability of a horizontal flip; the pre-training's by default")

    epochs: float = option(90.0, "passes over the images", "Optimisation")
    batch_size: int = option(4096, "images a step, over all replicas", "Optimisation")
    base_lr: float = option(0.02, LR)
    warmup_epochs: float = option(0.0, "epochs of linear warm-up")
    momentum: float = option(0.9, "momentum")
    weight_decay: float = option(0.0, "coupled L2 on what is trained")
    eval_every: int | None = option(
        None,
        "epochs between evaluations on the test images; 0: only at the end; by default as many as keep "
        "them within about 1 % of the time",
        free=True,
    )

    def validate(self) -> SupervisedConfig:
        """Returns itself, or raises UserError for the first value that cannot be."""
        super().validate()
        check_epochs(self)
        if not 0 < self.labels <= 1:
            raise UserError(f"labels={self.labels}: must be above 0 and at most 1, as in labels=0.1.")
        return self


@dataclasses.dataclass(frozen=True)
class LinearConfig(SupervisedConfig):
    """Linear evaluation; the defaults are the paper's (Sec. 3 and its appendix)."""

    optimizer: str = option(
        "lars", "lars (trust coefficient 0.001, no clipping) or sgd (the paper: lr 30, batch 256)",
        choices=("lars", "sgd"),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FinetuneConfig(SupervisedConfig):
    """Fine-tuning of the whole network."""

    RANGES = (*SupervisedConfig.RANGES, ("head_lr_factor", 0, 1e5))

    init: str = option(
        "weights",
        "where the backbone starts: at `weights`, or at random weights of the same architecture, to compare",
        choices=("weights", "random"),
    )
    epochs: float = option(50.0, "passes over the images", "Optimisation")
    batch_size: int = option(256, "images a step, over all replicas", "Optimisation")
    base_lr: float = option(0.02, LR)
    head_lr_factor: float = option(10.0, "multiplies the learning rate of the classifier on the backbone")
    weight_decay: float = option(1e-4, "coupled L2 on all parameters")
