"""BYOL (Grill et al., arXiv 2006.07733)."""

from __future__ import annotations

import keras
import tensorflow as tf

from simsiam_tf import losses, schedules
from simsiam_tf.methods.base import SiameseModel
from simsiam_tf.methods.momentum import MomentumEncoder
from simsiam_tf.nets import heads


class BYOL(SiameseModel):
    """L = ½ D(p1, z2') + ½ D(p2, z1'), z' by a momentum encoder, which becomes one with f at the end.

    The loss is theirs but for a constant: ‖p̄ − z̄'‖² = 2 + 2 D(p, z').

    Args:
        backbone: [B, H, W, C] → [B, F].
        d: width of z and p (256 there).
        projector_hidden, predictor_hidden: hidden widths; d when None (4096 there).
        projector_layers: fc layers of the projector.
        momentum: m at the first step, in [0, 1).
        steps: of the run, at whose end m is 1; None: m stays.
    """

    def __init__(
        self,
        backbone: keras.Model,
        d: int = 256,
        projector_hidden: int | None = 4096,
        predictor_hidden: int | None = 4096,
        projector_layers: int = 2,
        momentum: float = 0.996,
        steps: int | None = None,
        **kwargs,
    ) -> None:
        super().__init__(backbone, **kwargs)
        features = backbone.output_shape[-1]
        # BN on the hidden layer alone, as in BYOL: what Table 3 calls hidden-only.
        self.projector = heads.projector(features, d, projector_hidden, projector_layers, bn="hidden")
        self.predictor = heads.predictor(d, predictor_hidden or d)
        self.target = MomentumEncoder([self.backbone, self.projector], name="target")
        self.m = schedules.momentum_to_one(momentum, steps) if steps else schedules.constant(momentum)
        self.d = d
        self.built = True

    def objective(self, batch: dict) -> dict[str, tf.Tensor]:
        x1, x2 = self.views(batch)
        z1, z2 = self.f(x1), self.f(x2)
        there = losses.negative_cosine(self.h(z1), self.target(x2))
        back = losses.negative_cosine(self.h(z2), self.target(x1))
        return {"loss": (there + back) / 2, "z": z1}

    def after_step(self, outputs: dict[str, tf.Tensor]) -> None:
        del outputs
        m = self.m(self.optimizer.iterations - 1)  # of the step that has just been taken
        self.target.follow([self.backbone, self.projector], m)
