"""The momentum encoder of MoCo and BYOL: a copy of a network that follows it slowly."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from simsiam_tf.methods.base import TRAINING
from simsiam_tf.nets import BatchNorm


class MomentumEncoder(keras.layers.Layer):
    """ξ ← m ξ + (1 − m) θ, with θ the weights of networks applied one after the other.

    BN statistics are the copy's own, of what it is given. It is not trained, and belongs to the model
    that has it: its weights are saved and restored with the others.

    Args:
        networks: functional or sequential models, built.
        groups: equal parts of a replica's rows, each with BN statistics of its own, and of no other
            replica. None: those of the whole batch, over all replicas.
    """

    def __init__(self, networks: Sequence[keras.Model], groups: int | None = None, **kwargs) -> None:
        super().__init__(trainable=False, **kwargs)
        self.count, self.groups = len(networks), groups
        for i, network in enumerate(networks):  # NOTE: checkpoints do not look into a list
            setattr(self, f"network{i}", _copy(network, groups is not None))
        self.built = True

    @property
    def trainable(self) -> bool:
        """Never, whatever the model's is set to."""
        return False

    @trainable.setter
    def trainable(self, value: bool) -> None:
        del value

    @property
    def networks(self) -> list[keras.Model]:
        """The copies, in the order in which they are applied."""
        return [getattr(self, f"network{i}") for i in range(self.count)]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """View [B, H, W, C] → [B, d], float32, without gradient; in training mode but in `test_step`.

        The BN of groups has learned no statistics, and computes with those of the groups in any mode.
        """
        if self.groups is None:
            return self._encoded(x)
        if x.shape[0] is not None and x.shape[0] % self.groups:
            raise ValueError(
                f"A batch of {x.shape[0]} rows does not divide into {self.groups} groups, whose keys share "
                f"BN statistics. Try a batch of {-(-x.shape[0] // self.groups) * self.groups}."
            )
        parts = tf.reshape(x, [self.groups, -1, *x.shape[1:]])
        z = tf.map_fn(self._encoded, parts, fn_output_signature=tf.float32)
        return tf.reshape(z, [-1, z.shape[-1]])

    def _encoded(self, x: tf.Tensor) -> tf.Tensor:
        for network in self.networks:
            x = network(x, training=TRAINING.get() or self.groups is not None)
        return tf.stop_gradient(tf.cast(x, tf.float32))

    def follow(self, networks: Sequence[keras.Model], m: float | tf.Tensor) -> None:
        """Takes one step after the networks it was made from. m: in [0, 1], 1 to stay."""
        for mine, network in zip(self.networks, networks, strict=True):
            for copy, variable in zip(mine.weights, network.weights, strict=True):
                if variable.trainable:
                    assign(copy, m * copy + (1.0 - m) * variable)


def assign(variable: keras.Variable, value: tf.Tensor) -> None:
    """Gives a variable a value that all replicas have computed alike, without asking the others."""
    tf.raw_ops.AssignVariableOp(
        resource=variable.value.handle, value=tf.cast(tf.convert_to_tensor(value), variable.dtype)
    )


def _copy(network: keras.Model, alone: bool) -> keras.Model:
    """The same layers by names of their own, with the same weights, none of which is trainable."""

    def renamed(layer: keras.layers.Layer) -> keras.layers.Layer:
        return layer.from_config({**layer.get_config(), "name": f"momentum_{layer.name}"})

    copy = keras.models.clone_model(network, clone_function=renamed)
    copy.trainable = False
    for mine, variable in zip(copy.weights, network.weights, strict=True):
        mine.assign(variable)
    for mine, layer in zip(copy._flatten_layers(), network._flatten_layers(), strict=True):
        if isinstance(mine, BatchNorm):
            mine.batch_statistics, mine.is_local = layer.trainable or layer.batch_statistics, alone
        elif isinstance(mine, keras.layers.BatchNormalization) and layer.trainable:
            mine.trainable = True  # the layer, which would be in inference mode, but none of its weights
            for variable in mine.weights:
                variable.trainable = False
    return copy
