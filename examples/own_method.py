"""A method of your own: W-MSE (Ermolov et al., arXiv 2007.06346), which this package does not have.

What you learn: a method is a class with a projector and an `objective`, from views to {"loss", "z"}. With it
every option of `pretrain` works: data, networks, checkpoints, resume, monitor, several devices.

    python -m simsiam_tf.pretrain --flagfile=flags/quickstart.cfg --method=py:examples.own_method:WMSE \\
        --d=64 --epochs=1 --workdir=runs/wmse

It is run from the top of the checkout; py:MODULE:CLASS is a module of the current folder, or an installed
one. After one to some minutes on two cores it prints the loss, the diagnosis, and the kNN accuracy of raw
pixels, of random weights and of the trained backbone: 88.3, 82.2 and 88.6 % in one run (k = 20, whitened), so
that one epoch is too short to beat raw pixels clearly. With --data=digits --batch_size=128 it takes less.
The flags of the quickstart that are for a predictor fall away, since this method has none.

    model = WMSE(ss.nets.resnet10(stem="small", width=0.25, channels=1), d=64)

trains by Keras' `compile` and `fit`, too, as docs/python.md says of SimSiam. tests/test_examples.py compares
the loss with its formula in NumPy; do the same with yours.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

import simsiam_tf as ss  # before TensorFlow, for which it turns on fast convolutions


def whiten(z: tf.Tensor) -> tf.Tensor:
    """z [B, d], B > d → the same with mean 0 and covariance I over the batch (Eq. 4).

    With Σ = L Lᵀ, the covariance of z, W = L⁻¹ gives W Σ Wᵀ = I. A batch whose embeddings are equal has no
    such W: this is what keeps the embeddings apart, without negative pairs, stop-gradient or predictor.
    """
    z -= tf.reduce_mean(z, axis=0)
    covariance = tf.matmul(z, z, transpose_a=True) / tf.cast(tf.shape(z)[0] - 1, z.dtype)
    return tf.transpose(tf.linalg.triangular_solve(tf.linalg.cholesky(covariance), tf.transpose(z)))


@keras.saving.register_keras_serializable("examples")  # so that `model.save` keeps it
class WMSE(ss.SiameseModel):
    """L = 2 − 2 · mean cosine of the whitened embeddings of both views (Eq. 3 with normalised vectors).

    Args:
        backbone: images [B, H, W, C] → features [B, F].
        d: width of the embedding; less than the batch, in the paper 64 for batches of 256 to 1,024.
        projector_hidden, projector_layers: width of the hidden layers (F when None), and number of layers.
    """

    def __init__(
        self,
        backbone: keras.Model,
        d: int = 64,
        projector_hidden: int | None = None,
        projector_layers: int = 2,
        **kwargs,
    ) -> None:
        super().__init__(backbone, **kwargs)
        features = backbone.output_shape[-1]
        self.projector = ss.nets.projector(features, d, projector_hidden, projector_layers, bn="hidden")
        self.d = d
        self.built = True

    def objective(self, batch: dict[str, Any]) -> dict[str, Any]:
        """{"views": two of [B, H, W, C]} → the loss, a scalar in [0, 4], and z, [B, d], for std and rank."""
        z1, z2 = self.each(self.f, self.views(batch))
        # NOTE: whitened over the whole batch, of all replicas; the paper draws sub-batches of 2 d images.
        w1, w2 = (whiten(ss.methods.all_gather(z)[0]) for z in (z1, z2))
        return {"loss": 2 + 2 * ss.losses.negative_cosine(w1, w2), "z": z1}
