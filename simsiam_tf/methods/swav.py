"""SwAV (Caron et al., arXiv 2006.09882) with two views, and its variants of SimSiam's Sec. 6.2."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from simsiam_tf.distributed import strategies
from simsiam_tf.methods import losses
from simsiam_tf.methods.base import HAS_PREDICTOR, STOP, SiameseModel
from simsiam_tf.methods.momentum_encoder import assign
from simsiam_tf.methods.run_size import RunSize
from simsiam_tf.nets import heads

NORM_IN_LOSS = {"after_step": False, "in_loss": True}


class SwAV(SiameseModel):
    """Each view predicts the other's code, a soft assignment to prototypes (ImageNet top-1 66.5 %).

    Args, beside those of `SiameseModel`, with SwAV's widths as defaults:
        projector_layers: 3 in Table 4.
        prototypes: P, the number of prototypes.
        temperature: τ > 0 of the predicted codes.
        sinkhorn_epsilon, sinkhorn_iterations: ε and iterations of Sinkhorn–Knopp. exp(1 / ε), of a cosine
            of 1, has to fit into float32: ε from 0.0125 on.
        predictor: "trained": codes are predicted from the output of h (65.2 %).
        stop_gradient: False: codes get a gradient, and the loss diverges (Sec. 6.2).
        prototype_norm: when prototypes are scaled to length one: "after_step", without a gradient, as in
            SwAV's code, or "in_loss", with a gradient, as in Sec. 6.2 without stop-gradient.
    """

    def __init__(
        self,
        backbone: keras.Model,
        d: int = 128,
        projector_hidden: int | None = 2048,
        projector_layers: int = 3,
        prototypes: int = 3000,
        temperature: float = 0.1,
        sinkhorn_epsilon: float = 0.05,
        sinkhorn_iterations: int = 3,
        predictor: str = "none",
        predictor_hidden: int | None = None,
        stop_gradient: bool = True,
        prototype_norm: str = "after_step",
        **kwargs,
    ) -> None:
        super().__init__(backbone, **kwargs)
        features = backbone.output_shape[-1]
        self.projector = heads.projector(features, d, projector_hidden, projector_layers, bn="hidden")
        self.predictor = heads.predictor(d, predictor_hidden) if HAS_PREDICTOR[predictor] else None
        self.prototypes = keras.layers.Dense(prototypes, use_bias=False, dtype="float32", name="prototypes")
        self.prototypes.build((None, d))
        assert isinstance(self.prototypes.kernel, keras.Variable)
        self.prototypes.kernel.assign(self._unit_prototypes())
        self.stop = STOP[stop_gradient]
        self.norm_in_loss = NORM_IN_LOSS[prototype_norm]
        self.sinkhorn_epsilon, self.sinkhorn_iterations = sinkhorn_epsilon, sinkhorn_iterations
        self.temperature, self.d = temperature, d
        self.built = True

    @classmethod
    def from_options(cls, backbone: keras.Model, options: dict[str, Any], run: RunSize) -> SwAV:
        del run, options["frozen_prototypes"]  # `build_optimizer` reads it
        return cls(backbone, **options)

    def scores(self, z: tf.Tensor) -> tf.Tensor:
        """Cosines with all prototypes: [B, d] → [B, P]."""
        unit = tf.math.l2_normalize(z, axis=-1)
        return unit @ self._unit_prototypes() if self.norm_in_loss else self.prototypes(unit)

    def codes(self, z: tf.Tensor) -> tf.Tensor:
        """Codes, whose rows sum to 1, balanced over the batch of all replicas: [B, d] → [B, P]."""
        return losses.sinkhorn_knopp(
            self.scores(z), self.sinkhorn_epsilon, self.sinkhorn_iterations, strategies.all_reduce_sum
        )

    def objective(self, batch: dict[str, Any]) -> dict[str, Any]:
        z = self.each(self.f, self.views(batch))
        codes = [self.stop(self.codes(u)) for u in z]
        p = self.each(self.h, z)
        logs = [tf.nn.log_softmax(self.scores(u) / self.temperature) for u in p]
        both = [tf.reduce_sum(codes[j] * logs[i], axis=-1) for i, j in ((0, 1), (1, 0))]
        return {"loss": -tf.reduce_mean(tf.add_n(both)) / 2, "z": z[0]}

    def after_step(self, outputs: dict[str, Any]) -> None:
        del outputs
        if not self.norm_in_loss:
            assign(self.prototypes.kernel, self._unit_prototypes())

    def _unit_prototypes(self) -> tf.Tensor:
        """Prototypes as columns of length one, [d, P]."""
        return tf.math.l2_normalize(tf.convert_to_tensor(self.prototypes.kernel), axis=0)
