"""VICReg (Bardes, Ponce & LeCun, arXiv 2105.04906)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from simsiam_tf.distributed import strategies
from simsiam_tf.methods import losses
from simsiam_tf.methods.base import SiameseModel
from simsiam_tf.nets import heads

GAMMA, EPSILON = 1.0, 1e-4  # γ and ε of Eq. 1 and 2


def invariance(z1: tf.Tensor, z2: tf.Tensor) -> tf.Tensor:
    """s(Z, Z') of Eq. 5: mean squared distance of the rows of both views, a scalar ≥ 0.

    z1, z2: [n, d] float tensors.
    """
    # NOTE: the mean over the d channels, too, as in VICReg's code and Algorithm 1; Eq. 5 has their sum.
    return tf.reduce_mean(tf.square(z1 - z2))


def variance(z: tf.Tensor) -> tf.Tensor:
    """v(Z) of Eq. 1 and 2: mean over channels of max(0, γ − √(Var + ε)), a scalar in [0, γ].

    z: [n, d] float tensor; Var divides by n − 1.
    """
    n = tf.cast(tf.shape(z)[0], z.dtype)
    var = tf.math.reduce_variance(z, axis=0) * n / (n - 1)
    return tf.reduce_mean(tf.nn.relu(GAMMA - tf.sqrt(var + EPSILON)))


def covariance(z: tf.Tensor) -> tf.Tensor:
    """c(Z) of Eq. 3 and 4: squares of the covariances of different channels, summed, over d; a scalar ≥ 0.

    z: [n, d] float tensor; the covariances divide by n − 1.
    """
    n, d = (tf.cast(size, z.dtype) for size in tf.unstack(tf.shape(z)))
    z -= tf.reduce_mean(z, axis=0)
    return losses.off_diagonal_squares(z, z) / (n - 1) ** 2 / d


class VICReg(SiameseModel):
    """L = λ s(Z, Z') + μ/2 [v(Z) + v(Z')] + ν [c(Z) + c(Z')] (Eq. 6), over the batch of all replicas.

    Reaches 73.2 % ImageNet top-1 after 1000 epochs. The mean over channels in s, and half of Eq. 6's μ, are
    those of VICReg's code. With d · invariance_weight and 2 · variance_weight the loss is that of the paper.

    Args, beside the first four of `SiameseModel`, with VICReg's widths as defaults:
        projector_hidden: width of the hidden layers of the projector ("expander"); d when None.
        projector_layers: 3 in VICReg.
        invariance_weight, variance_weight, covariance_weight: λ, μ and ν, each ≥ 0.
    """

    def __init__(
        self,
        backbone: keras.Model,
        d: int = 8192,
        projector_hidden: int | None = None,
        projector_layers: int = 3,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        **kwargs,
    ) -> None:
        super().__init__(backbone, **kwargs)
        # BN on the hidden layers alone, and an output without bias.
        features, hidden = backbone.output_shape[-1], projector_hidden or d
        self.projector = heads.projector(features, d, hidden, projector_layers, "hidden", output_shift=False)
        self.term_weights = invariance_weight, variance_weight, covariance_weight
        self.d = d
        self.built = True

    def objective(self, batch: dict[str, Any]) -> dict[str, Any]:
        z = self.each(self.f, self.views(batch))
        both = [strategies.all_gather(u)[0] for u in z]
        lambda_, mu, nu = self.term_weights
        spread = tf.add_n([variance(u) for u in both]) / 2
        correlated = tf.add_n([covariance(u) for u in both])
        return {"loss": lambda_ * invariance(*both) + mu * spread + nu * correlated, "z": z[0]}
