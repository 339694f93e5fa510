"""SimSiam (Sec. 3, Algorithm 1) and the switches of its ablations (Sec. 4)."""

from __future__ import annotations

import keras
import tensorflow as tf

from simsiam_tf.methods import losses
from simsiam_tf.methods.base import STOP, SiameseModel
from simsiam_tf.nets import heads

SYMMETRY = {  # Sec. 4.6: (i, j) asks h to predict view j from view i
    "symmetric": ((0, 1), (1, 0)),  # 68.1
    "asymmetric": ((0, 1),),  # 64.8
    "asymmetric_2x": ((0, 1), (2, 3)),  # 67.3: two pairs an image
}


class SimSiam(SiameseModel):
    """L = ½ D(p1, stopgrad(z2)) + ½ D(p2, stopgrad(z1)) (Eq. 4).

    Args:
        backbone: [B, H, W, C] → [B, F], for example `nets.resnet50()`.
        d: width of z and p (App. B).
        projector_hidden, predictor_hidden: hidden widths; those of the features and d // 4 when None.
        projector_layers: fc layers of the projector; 3, or 2 for CIFAR (App. D).
        stop_gradient: False collapses (Fig. 2).
        predictor: a row of Table 1: "trained", "fixed" or "none".
        bn: a row of Table 3: "none", "hidden", "default" or "all".
        output_affine: False: the projector's output BN has no γ, β (Sec. 4.4).
        similarity: "cosine" (Eq. 1) or "cross_entropy" (Sec. 4.5).
        symmetry: "symmetric", "asymmetric" or "asymmetric_2x", which takes four views.

    Raises:
        KeyError: for a row that is not in its table.
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
        **kwargs,
    ) -> None:
        super().__init__(backbone, **kwargs)
        features = backbone.output_shape[-1]
        self.projector = heads.projector(features, d, projector_hidden, projector_layers, bn, output_affine)
        exists, self.predictor_learns = heads.PREDICTOR[predictor]
        self.predictor = heads.predictor(d, predictor_hidden, bn) if exists else None
        self.stop = STOP[stop_gradient]
        self.similarity = losses.SIMILARITY[similarity]
        self.pairs = SYMMETRY[symmetry]
        self.d = d
        self.built = True

    @property
    def view_count(self) -> int:
        """How many views of each image the loss takes."""
        return 1 + max(max(pair) for pair in self.pairs)

    def targets(self, batch: dict, z: list[tf.Tensor]) -> list[tf.Tensor]:
        """What the predictions are compared with: the projections themselves."""
        del batch
        return z

    def objective(self, batch: dict) -> dict[str, tf.Tensor]:
        # NOTE: one BN batch per view, as the official code; concatenating the views would
        # mix their statistics.
        z = [self.f(x) for x in self.views(batch)]
        p = {i: self.h(z[i]) for i, _ in self.pairs}
        t = [self.stop(u) for u in self.targets(batch, z)]  # Sec. 4.1
        loss = tf.add_n([self.similarity(p[i], t[j]) for i, j in self.pairs]) / len(self.pairs)
        return {"loss": loss, "z": z[0], "targets": t, "index": batch.get("index")}

    def learned_variables(self) -> list[keras.Variable]:
        """All but a fixed predictor's: Table 1 (b) keeps h, with its BN in training mode."""
        if self.predictor is None or self.predictor_learns:
            return self.trainable_variables
        fixed = {id(v) for v in self.predictor.trainable_variables}
        return [v for v in self.trainable_variables if id(v) not in fixed]
