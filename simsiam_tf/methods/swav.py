"""SwAV (Caron et al., arXiv 2006.09882) of two views, and its variants of Sec. 6.2."""

from __future__ import annotations

import keras
import tensorflow as tf

from simsiam_tf.distributed import strategies
from simsiam_tf.methods import losses
from simsiam_tf.methods.base import STOP, SiameseModel
from simsiam_tf.methods.momentum_encoder import assign
from simsiam_tf.nets import heads

PROTOTYPE_NORM = {"after_step": False, "in_loss": True}  # is the normalisation part of the loss?


class SwAV(SiameseModel):
    """Each view predicts the other's code: which prototypes it would be shared out to (66.5).

    Args:
        backbone: [B, H, W, C] → [B, F].
        d: width of z (128 there).
        projector_hidden: width of the hidden layers; d when None (2048 there).
        projector_layers: fc layers of the projector; three in the paper's comparison (Table 4).
        prototypes: how many there are.
        temperature: τ > 0 of the predicted codes.
        epsilon: ε > 0 of Sinkhorn–Knopp.
        iterations: of Sinkhorn–Knopp.
        predictor: whether h, too, is trained, and codes are predicted from its output (65.2).
        predictor_hidden: width of its hidden layer; d // 4 when None.
        stop_gradient: False: codes get a gradient, and the loss ends as no number.
        prototype_norm: where prototypes are made of length one: "after_step", outside the gradient, as in
            their code, or "in_loss", with a gradient, as Sec. 6.2 has it without stop-gradient.
    """

    def __init__(
        self,
        backbone: keras.Model,
        d: int = 128,
        projector_hidden: int | None = 2048,
        projector_layers: int = 3,
        prototypes: int = 3000,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        predictor: bool = False,
        predictor_hidden: int | None = None,
        stop_gradient: bool = True,
        prototype_norm: str = "after_step",
        **kwargs,
    ) -> None:
        super().__init__(backbone, **kwargs)
        features = backbone.output_shape[-1]
        self.projector = heads.projector(features, d, projector_hidden, projector_layers, bn="hidden")
        self.predictor = heads.predictor(d, predictor_hidden) if predictor else None
        self.prototypes = keras.layers.Dense(prototypes, use_bias=False, dtype="float32", name="prototypes")
        self.prototypes.build((None, d))
        self.prototypes.kernel.assign(self._unit_prototypes())
        self.stop = STOP[stop_gradient]
        self.norm_in_loss = PROTOTYPE_NORM[prototype_norm]
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.d = d
        self.built = True

    def scores(self, z: tf.Tensor) -> tf.Tensor:
        """[B, d] → cosines with all prototypes, [B, P]"""
        unit = tf.math.l2_normalize(z, axis=-1)
        return unit @ self._unit_prototypes() if self.norm_in_loss else self.prototypes(unit)

    def codes(self, z: tf.Tensor) -> tf.Tensor:
        """[B, d] → [B, P], rows that sum to 1; prototypes share out the images of all replicas."""
        return losses.sinkhorn_knopp(self.scores(z), self.epsilon, self.iterations, strategies.all_reduce_sum)

    def objective(self, batch: dict) -> dict[str, tf.Tensor]:
        z = [self.f(x) for x in self.views(batch)]
        codes = [self.stop(self.codes(u)) for u in z]
        logs = [tf.nn.log_softmax(self.scores(self.h(u)) / self.temperature) for u in z]
        each = [tf.reduce_sum(codes[j] * logs[i], axis=-1) for i, j in ((0, 1), (1, 0))]
        return {"loss": -tf.reduce_mean(tf.add_n(each)) / 2, "z": z[0]}

    def after_step(self, outputs: dict[str, tf.Tensor]) -> None:
        del outputs
        if not self.norm_in_loss:
            assign(self.prototypes.kernel, self._unit_prototypes())

    def _unit_prototypes(self) -> tf.Tensor:
        """[d, P], columns of length one"""
        return tf.math.l2_normalize(tf.convert_to_tensor(self.prototypes.kernel), axis=0)
