"""MoCo v2 (He et al., arXiv 1911.05722; Chen et al., 2003.04297), with the symmetric loss of Sec. 6.1."""

from __future__ import annotations

import keras
import tensorflow as tf

from simsiam_tf.distributed import strategies
from simsiam_tf.methods import losses
from simsiam_tf.methods.base import SiameseModel
from simsiam_tf.methods.momentum_encoder import MomentumEncoder, assign
from simsiam_tf.nets import heads


class MoCo(SiameseModel):
    """InfoNCE against a queue of earlier keys, by a momentum encoder, in both directions.

    BN statistics can tell a key of the same batch from those of the queue, and then less has to be learned:
    He et al. shuffle images between devices, so that a query and its key have other ones (Sec. 3.3 there).
    Here keys have those of a group of the batch instead, on any number of devices.

    Args:
        backbone: [B, H, W, C] → [B, F].
        d: width of z (128 there).
        projector_hidden: hidden width; that of the features when None, as there.
        projector_layers: fc layers of the projector, without BN.
        temperature: τ > 0.
        momentum: m of the momentum encoder, in [0, 1).
        queue: K, how many keys are kept, the newest.
        groups: equal parts of a replica's rows, whose keys share BN statistics; None for the whole batch's.
        seed: of the keys that are in the queue at first, which are random.
    """

    def __init__(
        self,
        backbone: keras.Model,
        d: int = 128,
        projector_hidden: int | None = None,
        projector_layers: int = 2,
        temperature: float = 0.2,
        momentum: float = 0.999,
        queue: int = 65536,
        groups: int | None = None,
        seed: int = 0,
        **kwargs,
    ) -> None:
        super().__init__(backbone, **{"name": "moco", **kwargs})  # which is part of the queue's path
        features = backbone.output_shape[-1]
        self.projector = heads.projector(features, d, projector_hidden, projector_layers, "none")
        self.encoder = MomentumEncoder([self.backbone, self.projector], groups, name="key_encoder")
        start = tf.math.l2_normalize(tf.random.stateless_normal([queue, d], [seed, 0]), axis=-1)
        self.queue = self.add_weight(
            name="queue", shape=(queue, d), initializer="zeros", trainable=False, autocast=False,
            aggregation="none",
        )  # fmt: skip
        self.queue.assign(start)
        self.temperature, self.momentum, self.d = temperature, momentum, d
        self.built = True

    def objective(self, batch: dict) -> dict[str, tf.Tensor]:
        x1, x2 = self.views(batch)
        z1, z2 = self.f(x1), self.f(x2)
        k1, k2 = self.encoder(x1), self.encoder(x2)
        queue = tf.convert_to_tensor(self.queue)
        there = losses.info_nce(z1, k2, queue, self.temperature)
        back = losses.info_nce(z2, k1, queue, self.temperature)
        return {"loss": (there + back) / 2, "z": z1, "keys": (k1, k2)}

    def after_step(self, outputs: dict[str, tf.Tensor]) -> None:
        self.encoder.follow([self.backbone, self.projector], self.momentum)
        newest = [strategies.all_gather(tf.math.l2_normalize(k, axis=-1))[0] for k in outputs["keys"]]
        assign(self.queue, tf.concat([*newest, self.queue], axis=0)[: self.queue.shape[0]])
