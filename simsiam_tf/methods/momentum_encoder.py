"""A copy of f whose weights follow those of f: the momentum encoder of MoCo, BYOL and `Alternation`."""

from __future__ import annotations

import keras
import tensorflow as tf

from simsiam_tf.methods.base import TRAINING
from simsiam_tf.nets import BatchNorm


class MomentumEncoder(keras.layers.Layer):
    """ξ ← m ξ + (1 − m) θ, where θ are the weights of the backbone and the projector.

    The copy is not trained by gradients; its weights are saved and restored with the model's. Its BN computes
    the statistics of its own inputs.

    groups: number of equal groups of a replica's rows, each with BN statistics of its own. None: the
    statistics are those of the batch over all replicas.
    """

    def __init__(
        self, backbone: keras.Model, projector: keras.Model, groups: int | None = None, **kwargs
    ) -> None:
        super().__init__(trainable=False, **kwargs)
        self.groups = groups
        self.backbone, self.projector = (_copy(net, groups is not None) for net in (backbone, projector))
        self.built = True

    @property
    def trainable(self) -> bool:
        """False, also when the model is set to trainable."""
        return False

    @trainable.setter
    def trainable(self, value: bool) -> None:
        del value

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """View [B, H, W, C] → [B, d], float32, without gradient; in training mode except in `test_step`.

        With groups, BN takes the statistics of the groups in any mode, and updates no moving ones.
        """
        if self.groups is None:
            return self._encode(x)
        rows = x.shape[0]
        if rows is not None and rows % self.groups:
            raise ValueError(
                f"A batch of {rows} rows does not divide into {self.groups} groups, whose keys share "
                f"BN statistics. Try a batch of {-(-rows // self.groups) * self.groups}."
            )
        groups = tf.reshape(x, [self.groups, -1, *x.shape[1:]])
        z = tf.map_fn(self._encode, groups, fn_output_signature=tf.float32)
        return tf.reshape(z, [-1, z.shape[-1]])

    def _encode(self, x: tf.Tensor) -> tf.Tensor:
        training = TRAINING.get() or self.groups is not None
        z = self.projector(self.backbone(x, training=training), training=training)
        return tf.stop_gradient(tf.cast(z, tf.float32))

    def follow(self, backbone: keras.Model, projector: keras.Model, m: float | tf.Tensor) -> None:
        """Moves the copies of trainable weights towards these weights. m: in [0, 1]; at 1 nothing moves."""
        for copy, network in ((self.backbone, backbone), (self.projector, projector)):
            for xi, theta in zip(copy.weights, network.weights, strict=True):
                if theta.trainable:
                    assign(xi, m * xi + (1.0 - m) * theta)


def assign(variable: keras.Variable, value: tf.Tensor) -> None:
    """Assigns a value that is the same on all replicas, without communication between them."""
    tf.raw_ops.AssignVariableOp(
        resource=variable.value.handle, value=tf.cast(tf.convert_to_tensor(value), variable.dtype)
    )


def _copy(network: keras.Model, in_groups: bool) -> keras.Model:
    """A copy with the same weights, none of them trainable, and with layer names of its own.

    in_groups: whether BN takes the statistics of the rows of one call, not those of all replicas.
    """

    def rename(layer: keras.layers.Layer) -> keras.layers.Layer:
        return layer.from_config({**layer.get_config(), "name": f"momentum_{layer.name}"})

    copy = keras.models.clone_model(network, clone_function=rename)
    copy.trainable = False
    for xi, theta in zip(copy.weights, network.weights, strict=True):
        xi.assign(theta)
    for new, old in zip(copy._flatten_layers(), network._flatten_layers(), strict=True):
        if isinstance(new, BatchNorm):
            new.batch_statistics, new.is_local = old.trainable or old.batch_statistics, in_groups
        elif isinstance(new, keras.layers.BatchNormalization) and old.trainable:
            new.trainable = True  # or it would compute in inference mode; its weights stay untrained
            for variable in new.weights:
                variable.trainable = False
    return copy
