"""BYOL (Grill et al., arXiv 2006.07733)."""

from __future__ import annotations

import keras
import tensorflow as tf

from simsiam_tf.methods import losses
from simsiam_tf.methods.base import SiameseModel
from simsiam_tf.methods.momentum_encoder import MomentumEncoder
from simsiam_tf.nets import heads
from simsiam_tf.optimizers import schedules


class BYOL(SiameseModel):
    """L = ‖p̄1 − z̄2'‖² + ‖p̄2 − z̄1'‖², z' by a momentum encoder, which becomes one with f at the end.

    Eq. 2 there and its other direction, in [0, 8], as the sum that their code takes. Of vectors of length
    one ‖p̄ − z̄'‖² = 2 + 2 D(p, z'), so that gradients are four times those of SimSiam's mean.

    Args:
        backbone: [B, H, W, C] → [B, F].
        d: width of z and p (256 there).
        projector_hidden: hidden width of the projector; that of the features when None (4096 there).
        predictor_hidden: hidden width of the predictor; the projector's when None.
        projector_layers: fc layers of the projector.
        momentum: m at the first step, in [0, 1).
        steps: of the run, at whose end m is 1; None: m stays.
    """

    def __init__(
        self,
        backbone: keras.Model,
        d: int = 256,
        projector_hidden: int | None = 4096,
        predictor_hidden: int | None = None,
        projector_layers: int = 2,
        momentum: float = 0.996,
        steps: int | None = None,
        **kwargs,
    ) -> None:
        super().__init__(backbone, **kwargs)
        features = backbone.output_shape[-1]
        # BN on the hidden layer alone, which Table 3 calls hidden-only, and an output without bias.
        hidden = projector_hidden or features
        options = {"bn": "hidden", "output_shift": False}
        self.projector = heads.projector(features, d, hidden, projector_layers, **options)
        self.predictor = heads.predictor(d, predictor_hidden or hidden, **options)
        self.target = MomentumEncoder([self.backbone, self.projector], name="target")
        self.m = schedules.momentum_to_one(momentum, steps) if steps else schedules.constant(momentum)
        self.d = d
        self.built = True

    def objective(self, batch: dict) -> dict[str, tf.Tensor]:
        x1, x2 = self.views(batch)
        z1, z2 = self.f(x1), self.f(x2)
        there = losses.negative_cosine(self.h(z1), self.target(x2))
        back = losses.negative_cosine(self.h(z2), self.target(x1))
        return {"loss": 4 + 2 * (there + back), "z": z1}

    def after_step(self, outputs: dict[str, tf.Tensor]) -> None:
        del outputs
        m = self.m(self.optimizer.iterations - 1)  # of the step that has just been taken
        self.target.follow([self.backbone, self.projector], m)
