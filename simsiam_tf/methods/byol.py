"""BYOL (Grill et al., arXiv 2006.07733)."""

from __future__ import annotations

from typing import Any

import keras

from simsiam_tf.methods import losses
from simsiam_tf.methods.base import SiameseModel
from simsiam_tf.methods.momentum_encoder import MomentumEncoder
from simsiam_tf.methods.run_size import RunSize
from simsiam_tf.nets import heads
from simsiam_tf.optimizers import schedules


class BYOL(SiameseModel):
    """L = ‖p̄1 − z̄2'‖² + ‖p̄2 − z̄1'‖², with z' by a momentum encoder that follows f.

    Eq. 2 of BYOL in both directions, in [0, 8]: the sum, as in its code. p̄ is p/‖p‖, so that
    ‖p̄ − z̄'‖² = 2 + 2 D(p, z'), and gradients are four times those of SimSiam's mean.

    Args, beside the first four of `SiameseModel`, with BYOL's defaults:
        predictor_hidden: width of the predictor's hidden layer; the projector's when None.
        target_momentum: m at the first step, in [0, 1).
        steps: length of the run, at whose end m is 1; m stays the same when None.
    """

    def __init__(
        self,
        backbone: keras.Model,
        d: int = 256,
        projector_hidden: int | None = 4096,
        predictor_hidden: int | None = None,
        projector_layers: int = 2,
        target_momentum: float = 0.996,
        steps: int | None = None,
        **kwargs,
    ) -> None:
        super().__init__(backbone, **kwargs)
        features = backbone.output_shape[-1]
        # BN on the hidden layer alone (Table 3: hidden-only), and an output without bias.
        hidden = projector_hidden or features
        options = {"bn": "hidden", "output_shift": False}
        self.projector = heads.projector(features, d, hidden, projector_layers, **options)
        self.predictor = heads.predictor(d, predictor_hidden or hidden, **options)
        self.target = MomentumEncoder(self.backbone, self.projector, name="target")
        m = target_momentum
        self.m = schedules.cosine(m, steps, final=1.0) if steps else schedules.constant(m)
        self.d = d
        self.built = True

    @classmethod
    def from_options(cls, backbone: keras.Model, options: dict[str, Any], run: RunSize) -> BYOL:
        return cls(backbone, steps=run.steps, **options)

    def objective(self, batch: dict[str, Any]) -> dict[str, Any]:
        x1, x2 = self.views(batch)
        z = self.each(self.f, (x1, x2))
        (p1, p2), (t2, t1) = self.each(self.h, z), self.each(self.target, (x2, x1))
        there, back = losses.negative_cosine(p1, t2), losses.negative_cosine(p2, t1)
        return {"loss": 4 + 2 * (there + back), "z": z[0]}

    def after_step(self, outputs: dict[str, Any]) -> None:
        del outputs
        m = self.m(self.optimizer.iterations - 1)  # `iterations` counts this step already
        self.target.follow(self.backbone, self.projector, m)
