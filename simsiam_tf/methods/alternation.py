"""SimSiam as alternating optimisation, with k steps between two assignments (Sec. 5.1 and 5.3)."""

from __future__ import annotations

import keras
import tensorflow as tf

from simsiam_tf.methods.momentum_encoder import MomentumEncoder
from simsiam_tf.methods.simsiam import SimSiam


class Alternation(SimSiam):
    """θ is learned for k steps while the targets η = F(T'(x)) are those of the θ before (Eq. 7 to 9).

    The paper computes the targets of the next k steps beforehand and keeps them. Each is needed once, so
    here the weights that make them are kept instead: the same targets, and memory for one more network,
    whatever k is. With k = 1 it is SimSiam (68.1); 10: 68.7, 100: 68.9, an epoch: 67.0.

    Args:
        backbone, switches: as for `SimSiam`.
        k: steps between two assignments, ≥ 1.
    """

    def __init__(self, backbone: keras.Model, k: int = 1, **switches) -> None:
        super().__init__(backbone, **switches)
        self.k = k
        self.assigned = MomentumEncoder([self.backbone, self.projector], name="assigned")

    def targets(self, batch: dict, z: list[tf.Tensor]) -> list[tf.Tensor]:
        del z
        return [self.assigned(x) for x in batch["views"]]

    def after_step(self, outputs: dict[str, tf.Tensor]) -> None:
        del outputs

        def assign() -> tf.Tensor:
            self.assigned.follow([self.backbone, self.projector], m=0.0)
            return tf.constant(True)

        due = self.optimizer.iterations % self.k == 0  # `iterations` has counted this step
        tf.cond(due, assign, lambda: tf.constant(False))
