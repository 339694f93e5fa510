"""SimSiam (Sec. 3, Algorithm 1) with the switches of its ablations (Sec. 4)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from simsiam_tf.config.method_options import SYMMETRY
from simsiam_tf.methods import losses
from simsiam_tf.methods.base import STOP, SiameseModel
from simsiam_tf.nets import heads


class SimSiam(SiameseModel):
    """L = ½ D(p1, stopgrad(z2)) + ½ D(p2, stopgrad(z1)) (Eq. 4).

    With N small views l, which the paper does not have, it is the mean of 2 + 2N similarities:
    L = [D(p1, z2) + D(p2, z1) + Σ_l (D(p_l, z1) + D(p_l, z2))] / (2 + 2N), with stop-gradient on every z.

    Args, beside those of `SiameseModel`:
        projector_layers: 3, or 2 for CIFAR (App. D).
        stop_gradient: False collapses (Fig. 2).
        predictor: a row of Table 1: "trained", "fixed" or "none".
        bn: a row of Table 3: "none", "hidden", "default" or "all".
        output_affine: False for an output BN of the projector without γ and β (Sec. 4.4).
        similarity: "cosine" (Eq. 1) or "cross_entropy" (Sec. 4.5).
        symmetry: a row of Sec. 4.6: "symmetric", "asymmetric" or "asymmetric_2x", which takes four views.
        local_views: N, the number of small views of an image, which come after those of full size.
    """

    def __init__(
        self,
        backbone: keras.Model,
        d: int = 2048,
        projector_hidden: int | None = None,
        predictor_hidden: int | None = None,
        projector_layers: int = 3,
        stop_gradient: bool = True,
        predictor: str = "trained",
        bn: str = "default",
        output_affine: bool = True,
        similarity: str = "cosine",
        symmetry: str = "symmetric",
        local_views: int = 0,
        **kwargs,
    ) -> None:
        super().__init__(backbone, **kwargs)
        features = backbone.output_shape[-1]
        self.projector = heads.projector(features, d, projector_hidden, projector_layers, bn, output_affine)
        exists, self.predictor_learns = heads.PREDICTOR[predictor]
        self.predictor = heads.predictor(d, predictor_hidden, bn) if exists else None
        self.stop = STOP[stop_gradient]
        self.similarity = losses.SIMILARITY[similarity]
        full = 1 + max(max(pair) for pair in SYMMETRY[symmetry])
        small = range(full, full + local_views)
        self.pairs = SYMMETRY[symmetry] + tuple((i, j) for i in small for j in range(full))
        self.local_views = local_views
        self.d = d
        self.built = True

    @property
    def view_count(self) -> int:
        """Number of views of each image that the loss takes."""
        return 1 + max(max(pair) for pair in self.pairs)

    def targets(self, batch: dict, z: list[tf.Tensor]) -> list[tf.Tensor]:
        """The targets that the views give, each [B, d]: here their projections z."""
        del batch
        return z

    def objective(self, batch: dict[str, Any]) -> dict[str, Any]:
        # NOTE: one BN batch per view, as in the official code; concatenated views would mix their statistics.
        z = self.project(self.views(batch))
        predicting = list(dict(self.pairs))
        p = dict(zip(predicting, self.each(self.h, [z[i] for i in predicting]), strict=True))
        t = [self.stop(u) for u in self.targets(batch, z)]  # Sec. 4.1
        loss = tf.add_n([self.similarity(p[i], t[j]) for i, j in self.pairs]) / len(self.pairs)
        return {"loss": loss, "z": z[0], "targets": t, "index": batch.get("index")}

    def learned_variables(self) -> list[keras.Variable]:
        """All trainable variables except those of a fixed h, whose BN stays in training mode (Table 1 b)."""
        if self.predictor is None or self.predictor_learns:
            return self.trainable_variables
        fixed = {id(v) for v in self.predictor.trainable_variables}
        return [v for v in self.trainable_variables if id(v) not in fixed]
