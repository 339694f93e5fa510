"""Barlow Twins (Zbontar, Jing et al., arXiv 2103.03230)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from simsiam_tf.distributed import strategies
from simsiam_tf.methods import losses
from simsiam_tf.methods.base import SiameseModel
from simsiam_tf.nets import heads

# NOTE: ε is that of the BN by which the code of Barlow Twins standardises; Eq. 2 has none.
EPSILON = 1e-5


def barlow_twins(z1: tf.Tensor, z2: tf.Tensor, redundancy_weight: float) -> tf.Tensor:
    """Σ_i (1 − C_ii)² + λ Σ_i Σ_{j≠i} C_ij² of Eq. 1, a scalar ≥ 0.

    C are the correlations of the channels of one view with those of the other (Eq. 2).

    z1, z2: [n, d] float tensors, of two views of n images. redundancy_weight: λ ≥ 0.
    """
    n = tf.cast(tf.shape(z1)[0], z1.dtype)
    a, b = _standardised(z1), _standardised(z2)
    diagonal = tf.reduce_mean(a * b, axis=0)  # C_ii
    redundancy = losses.off_diagonal_squares(a, b) / n**2
    return tf.reduce_sum(tf.square(1.0 - diagonal)) + redundancy_weight * redundancy


def _standardised(z: tf.Tensor) -> tf.Tensor:
    """Each channel of z [n, d] with mean 0 and variance 1 over the batch."""
    mean, var = tf.nn.moments(z, axes=[0])
    return (z - mean) * tf.math.rsqrt(var + EPSILON)


class BarlowTwins(SiameseModel):
    """L = s · [Σ_i (1 − C_ii)² + λ Σ_i Σ_{j≠i} C_ij²] (Eq. 1), over the batch of all replicas.

    Reaches 73.2 % ImageNet top-1 after 1000 epochs.

    Args, beside the first four of `SiameseModel`, with the paper's widths as defaults:
        projector_hidden: width of the projector's hidden layers; d when None.
        projector_layers: 3 in Barlow Twins.
        redundancy_weight: λ ≥ 0.
        loss_factor: s > 0, which the paper leaves out. 0.024 is the scale_loss of the released code. Later
            code has a learning rate for biases and BN that is smaller by 0.024 instead, which is the same
            with LARS; with SGD, s sets the size of every update.
    """

    def __init__(
        self,
        backbone: keras.Model,
        d: int = 8192,
        projector_hidden: int | None = None,
        projector_layers: int = 3,
        redundancy_weight: float = 5e-3,
        loss_factor: float = 0.024,
        **kwargs,
    ) -> None:
        super().__init__(backbone, **kwargs)
        # BN on the hidden layers alone, and an output without bias.
        features, hidden = backbone.output_shape[-1], projector_hidden or d
        self.projector = heads.projector(features, d, hidden, projector_layers, "hidden", output_shift=False)
        self.redundancy_weight, self.loss_factor, self.d = redundancy_weight, loss_factor, d
        self.built = True

    def objective(self, batch: dict[str, Any]) -> dict[str, Any]:
        z = self.each(self.f, self.views(batch))
        z1, z2 = (strategies.all_gather(u)[0] for u in z)
        return {"loss": self.loss_factor * barlow_twins(z1, z2, self.redundancy_weight), "z": z[0]}
