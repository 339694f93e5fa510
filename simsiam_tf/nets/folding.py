"""Batch normalisation folded into the convolution before it, for inference."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from simsiam_tf.nets.batch_norm import BatchNorm
from simsiam_tf.nets.conv import Conv
from simsiam_tf.nets.keras_networks import clone, rebuild

CONVOLUTIONS = (Conv, keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
BATCH_NORMS = (BatchNorm, keras.layers.BatchNormalization)


def fold_batch_norms(network: keras.Model) -> keras.Model:
    """The same network for inference, in which each convolution includes the BN after it.

    Features differ by rounding alone. With s = γ / √(variance + ε), a kernel becomes kernel · s, and the bias
    becomes (bias − mean) · s + β. BN after another layer stays. A network whose layers cannot be replaced
    (`keras_networks.rebuild`) is returned as it is.
    """
    batch_norms = {conv: bn for bn in network.layers if (conv := _convolution_before(bn, network))}
    folded = set(batch_norms.values())
    weights: dict[str, list] = {}

    def replace(layer: Any) -> list:
        if layer in folded:
            return []
        if layer not in batch_norms:
            return [clone(layer, fold_batch_norms)]
        weights[layer.name] = _folded_weights(layer, batch_norms[layer])
        kind = keras.layers.Conv2D if type(layer) is Conv else type(layer)
        conv = kind.from_config({**layer.get_config(), "use_bias": True})
        if pad := getattr(layer, "pad", 0):
            name = f"{layer.name}_pad"
            return [keras.layers.ZeroPadding2D(pad, name=name, dtype=layer.dtype_policy), conv]
        return [conv]

    return rebuild(network, replace, weights)


def _convolution_before(layer: Any, network: keras.Model) -> Any:
    """The convolution before a BN, where nothing else reads its output; None for any other layer."""
    if type(layer) not in BATCH_NORMS or len(layer._inbound_nodes) != 1:
        return None
    parents = layer._inbound_nodes[0].parent_nodes
    conv: Any = parents[0].operation if parents else None
    plain = (
        type(conv) in CONVOLUTIONS
        and conv.activation is keras.activations.linear
        and conv.data_format == "channels_last"
        and getattr(layer, "axis", -1) in (-1, 3)
        and len(conv._inbound_nodes) == len(conv._outbound_nodes) == 1
        and not any(conv.output is output for output in network.outputs)
    )
    return conv if plain else None


def _folded_weights(conv: Any, bn: Any) -> list[np.ndarray]:
    """[kernel, bias] of the convolution and the BN together."""

    def values(variable: Any, otherwise: float) -> np.ndarray:
        return np.asarray(otherwise if variable is None else variable, np.float64)

    kernel, *rest = (np.asarray(w, np.float64) for w in conv.get_weights())
    gamma, beta = values(getattr(bn, "gamma", None), 1.0), values(getattr(bn, "beta", None), 0.0)
    mean, variance = values(bn.moving_mean, 0.0), values(bn.moving_variance, 1.0)
    scale = gamma / np.sqrt(variance + bn.epsilon)
    bias = ((rest[0] if rest else 0.0) - mean) * scale + beta
    # The filters of a depthwise kernel, [h, w, C, m], are the last two axes.
    per_filter = scale.reshape(kernel.shape[2:]) if isinstance(conv, keras.layers.DepthwiseConv2D) else scale
    return [kernel * per_filter, bias]
