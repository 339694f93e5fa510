"""A linear whitening of the features as the last layer of a backbone, and its removal."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

NAME = "whitening"


def add_whitening(backbone: keras.Model, mean: np.ndarray, matrix: np.ndarray) -> keras.Model:
    """The backbone with features (f − mean) · matrix, by a Dense layer of float32 in stock Keras.

    backbone: images → features f [B, F]; its layers are shared. mean: [F]. matrix: [F, F].
    """
    matrix = np.asarray(matrix, np.float64)
    layer = keras.layers.Dense(
        len(matrix), name=NAME, dtype="float32", trainable=False, kernel_initializer="zeros"
    )
    features: Any = backbone.outputs[0]
    network = keras.Model(backbone.inputs[0], layer(features), name=backbone.name)
    layer.set_weights([matrix, -np.asarray(mean, np.float64) @ matrix])
    return network


def whitening_layer(network: keras.Model) -> keras.layers.Dense | None:
    """The layer that `add_whitening` added; None where the network does not end in one."""
    last = network.layers[-1] if getattr(network, "layers", None) else None
    is_whitening = type(last) is keras.layers.Dense and last.name == NAME
    return last if is_whitening and last.output is network.outputs[0] else None


def without_whitening(network: keras.Model) -> keras.Model:
    """The backbone beneath the whitening, whose layers are shared; the network itself where it has none."""
    layer = whitening_layer(network)
    if layer is None:
        return network
    return keras.Model(network.inputs[0], layer.input, name=network.name)


def whiten_like(network: keras.Model, features: Any) -> Any:
    """Features [B, F] of the backbone beneath a network, whitened where the network is."""
    layer = whitening_layer(network)
    return features if layer is None else layer(features)
