"""SimSiam as alternating optimisation with k steps between two assignments (Sec. 5.1 and 5.2)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from simsiam_tf.methods.momentum_encoder import MomentumEncoder
from simsiam_tf.methods.run_size import RunSize
from simsiam_tf.methods.simsiam import SimSiam


class Alternation(SimSiam):
    """θ is learned for k steps against targets η = F(T'(x)) of the weights before these steps (Eq. 7 to 10).

    The paper computes the targets of the next k steps in advance and stores them. Each is needed once, so
    this class stores the weights that make them instead: the same targets, for the memory of one more
    network at any k. ImageNet top-1: 68.1 % for k = 1, which is SimSiam, 68.7 for 10, 68.9 for 100 and 67.0
    for an epoch.

    Args:
        backbone, switches: as for `SimSiam`.
        k: steps between two assignments, ≥ 1.
    """

    def __init__(self, backbone: keras.Model, k: int = 1, **switches) -> None:
        super().__init__(backbone, **switches)
        self.k = k
        self.assigned = MomentumEncoder(self.backbone, self.projector, name="assigned")

    @classmethod
    def from_options(cls, backbone: keras.Model, options: dict[str, Any], run: RunSize) -> Alternation:
        k = options.pop("alternate")
        return cls(backbone, run.epoch_steps if k == "epoch" else int(k), **options)

    def targets(self, batch: dict, z: list[tf.Tensor]) -> list[tf.Tensor]:
        del z
        return self.each(self.assigned, batch["views"])

    def after_step(self, outputs: dict[str, Any]) -> None:
        del outputs
        due = self.optimizer.iterations % self.k == 0  # `iterations` counts this step already
        self.assigned.follow(self.backbone, self.projector, m=tf.where(due, 0.0, 1.0))
