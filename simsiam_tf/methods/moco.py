"""MoCo v2 (He et al., arXiv 1911.05722; Chen et al., 2003.04297) with SimSiam's symmetric loss (Sec. 6.1)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from simsiam_tf.distributed import strategies
from simsiam_tf.methods import losses
from simsiam_tf.methods.base import SiameseModel
from simsiam_tf.methods.momentum_encoder import MomentumEncoder, assign
from simsiam_tf.methods.run_size import RunSize
from simsiam_tf.nets import heads
from simsiam_tf.runtime.errors import UserError


class MoCo(SiameseModel):
    """InfoNCE in both directions, against a queue of earlier keys from a momentum encoder.

    If queries and keys shared BN statistics, a query could recognise its key by these, not by the image.
    MoCo therefore shuffles images between devices (Sec. 3.3 of MoCo). Instead, this class can compute the BN
    statistics of keys within groups of the batch, on any number of devices.

    Args, beside the first four of `SiameseModel`:
        projector_layers: 2 in MoCo v2, without BN.
        temperature: τ > 0.
        target_momentum: m of the momentum encoder, in [0, 1).
        queue: K, the number of newest keys that are stored.
        groups: number of groups of a replica's rows, within which the BN statistics of keys are computed;
            None: the whole batch, over all replicas, is one group.
        seed: seed of the random keys that fill the queue at first.
    """

    def __init__(
        self,
        backbone: keras.Model,
        d: int = 128,
        projector_hidden: int | None = None,
        projector_layers: int = 2,
        temperature: float = 0.2,
        target_momentum: float = 0.999,
        queue: int = 65536,
        groups: int | None = None,
        seed: int = 0,
        **kwargs,
    ) -> None:
        super().__init__(backbone, **{"name": "moco", **kwargs})  # the queue's path begins with it
        features = backbone.output_shape[-1]
        self.projector = heads.projector(features, d, projector_hidden, projector_layers, "none")
        self.encoder = MomentumEncoder(self.backbone, self.projector, groups, name="key_encoder")
        start = tf.math.l2_normalize(tf.random.stateless_normal([queue, d], (seed, 0)), axis=-1)
        self.queue = self.add_weight(
            name="queue", shape=(queue, d), initializer="zeros", trainable=False, autocast=False,
            aggregation="none",
        )  # fmt: skip
        self.queue.assign(start)
        self.temperature, self.target_momentum, self.d = temperature, target_momentum, d
        self.built = True

    @classmethod
    def from_options(cls, backbone: keras.Model, options: dict[str, Any], run: RunSize) -> MoCo:
        """Divides the groups of a batch, options["key_groups"], among the replicas, at least one for each.

        A single group is not divided: it spans all replicas.
        """
        key_groups = options.pop("key_groups")
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if key_groups > replicas and key_groups % replicas:
            raise UserError(
                f"key_groups={key_groups}: cannot be divided over {replicas} replicas. "
                f"Try key_groups={key_groups // replicas * replicas}."
            )
        groups = None if key_groups == 1 else max(1, key_groups // replicas)
        return cls(backbone, groups=groups, seed=run.seed, **options)

    def objective(self, batch: dict[str, Any]) -> dict[str, Any]:
        x1, x2 = self.views(batch)
        z1, z2 = self.each(self.f, (x1, x2))
        k1, k2 = self.encoder(x1), self.encoder(x2)
        queue = tf.convert_to_tensor(self.queue)
        there = losses.info_nce(z1, k2, queue, self.temperature)
        back = losses.info_nce(z2, k1, queue, self.temperature)
        return {"loss": (there + back) / 2, "z": z1, "keys": (k1, k2)}

    def after_step(self, outputs: dict[str, Any]) -> None:
        self.encoder.follow(self.backbone, self.projector, self.target_momentum)
        newest = [strategies.all_gather(tf.math.l2_normalize(k, axis=-1))[0] for k in outputs["keys"]]
        assign(self.queue, tf.concat([*newest, self.queue], axis=0)[: self.queue.shape[0]])
