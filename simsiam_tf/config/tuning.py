"""Options for training a backbone that already has weights: optimizer, rates by layer, frozen layers."""

from __future__ import annotations

import dataclasses
from typing import Self

from simsiam_tf.config.fields import Config, Inapplicable, option
from simsiam_tf.runtime.errors import UserError

ADAMW_HIGHEST_LR = 0.01  # for a batch of 256; published rates are 1e-4 to 4e-3


@dataclasses.dataclass(frozen=True)
class TuningConfig(Config):
    """Options of trainings in which the backbone learns; a base beside `RunConfig`."""

    INAPPLICABLE = (
        Inapplicable(("adam_beta2",), "optimizer", lambda v: v != "adamw", "another `optimizer` than adamw"),
    )

    optimizer: str = option(
        "sgd",
        "sgd; or adamw, for transformers, for example with base_lr=0.001 weight_decay=0.05. Weight decay of "
        "adamw is decoupled, and leaves out biases, normalisation layers, tokens and position embeddings",
        "Optimisation",
        choices=("sgd", "adamw"),
    )
    adam_beta2: float = option(0.999, "β2 of adamw, whose β1 is `momentum`", limits=(0, 0.999999))
    backbone_lr_factor: float = option(
        1.0,
        "factor of the backbone's learning rate, such as 0.1 where it starts from published weights",
        limits=(0, 1e3),
    )
    layer_decay: float = option(
        1.0,
        "learning rate of a block of the backbone, as a multiple of that of the block after it, such as 0.75 "
        "for fine-tuning a transformer; 1: the same learning rate everywhere",
        limits=(0.01, 1),
    )
    freeze_until: str | None = option(
        None,
        "name, or beginning of a name, of a layer of the backbone, as in freeze_until=stage2 or "
        "freeze_until=transformer_block_6. The last such layer and all before it are not trained, and their "
        "batch normalisation keeps its statistics",
    )

    def validate(self) -> Self:
        super().validate()
        base_lr = vars(self)["base_lr"]
        if self.optimizer == "adamw" and base_lr > ADAMW_HIGHEST_LR:
            raise UserError(
                f"base_lr={base_lr:g}: is too high for optimizer=adamw, which moves every weight by about "
                f"the learning rate in a step. Try base_lr=0.001; at most {ADAMW_HIGHEST_LR:g} is allowed."
            )
        return self
