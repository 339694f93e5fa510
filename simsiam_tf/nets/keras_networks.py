"""Converts networks between stock Keras layers, for files, and this package's layers, for training."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras.src.models.functional import Functional

from simsiam_tf.nets.batch_norm import BatchNorm
from simsiam_tf.nets.conv import Conv, is_plain


def to_stock_layers(network: keras.Model) -> keras.Model:
    """The same network and weights in stock Keras layers, which open where this package is not installed.

    Features differ by rounding alone. A padded, strided `Conv` becomes ZeroPadding2D and Conv2D.
    """

    def replace(layer: Any) -> list:
        if isinstance(layer, BatchNorm):
            return [_stock_batch_norm(layer)]
        if not isinstance(layer, Conv):
            return [clone(layer, to_stock_layers)]
        padding = keras.layers.ZeroPadding2D(layer.pad, name=f"{layer.name}_pad", dtype=layer.dtype_policy)
        return [padding] * (layer.pad > 0) + [keras.layers.Conv2D.from_config(layer.get_config())]

    return rebuild(network, replace)


def to_training_layers(network: keras.Model) -> keras.Model:
    """The same network and weights in `Conv` and `BatchNorm` layers, where these compute the same.

    Undoes `to_stock_layers`. Other layers stay, such as a convolution with a bias.
    """
    paddings = {_padding_before(layer) for layer in network.layers}

    def replace(layer: Any) -> list:
        if layer in paddings:
            return []
        if _is_conv(layer) and (
            layer.padding == "same" or layer.kernel_size == (1, 1) or _padding_before(layer)
        ):
            return [Conv.from_config(layer.get_config())]
        if type(layer) is keras.layers.BatchNormalization:
            batch_norm = BatchNorm(
                layer.momentum, layer.epsilon, layer.scale, center=layer.center,
                zero_gamma=isinstance(layer.gamma_initializer, keras.initializers.Zeros),
                name=layer.name, trainable=layer.trainable, dtype=layer.dtype_policy,
            )  # fmt: skip
            is_last = layer.axis in (-1, len(keras.tree.flatten(layer.input)[0].shape) - 1)
            if _stock_batch_norm(batch_norm).get_config() == {**layer.get_config(), "axis": -1} and is_last:
                return [batch_norm]
        return [clone(layer, to_training_layers)]

    return rebuild(network, replace)


def _stock_batch_norm(layer: BatchNorm) -> keras.layers.BatchNormalization:
    return keras.layers.BatchNormalization(
        momentum=layer.momentum, epsilon=layer.epsilon,
        scale=layer.affine, center=layer.affine and layer.center,
        gamma_initializer="zeros" if layer.zero_gamma else "ones",
        name=layer.name, trainable=layer.trainable, dtype=layer.dtype_policy,
    )  # fmt: skip


def _is_conv(layer: Any) -> bool:
    """Whether a layer may have been a `Conv` before `to_stock_layers`; the padding before it is unchecked."""
    padding = "same" if getattr(layer, "strides", None) == (1, 1) else "valid"
    return type(layer) is keras.layers.Conv2D and is_plain(layer) and layer.padding == padding


def _padding_before(layer: Any) -> keras.layers.ZeroPadding2D | None:
    """The ZeroPadding2D that pads for this strided convolution alone, as `Conv` does; None without one."""
    if not _is_conv(layer) or layer.padding == "same" or len(layer._inbound_nodes) != 1:
        return None
    padding, pad = layer._inbound_nodes[0].parent_nodes[0].operation, layer.kernel_size[0] // 2
    fits = type(padding) is keras.layers.ZeroPadding2D and padding.padding == ((pad, pad), (pad, pad))
    return padding if fits and len(padding._outbound_nodes) == 1 else None


def clone(layer: Any, convert: Callable[[keras.Model], keras.Model]) -> Any:
    """A layer or operation of the same configuration; a nested network is converted."""
    return convert(layer) if isinstance(layer, keras.Model) else type(layer).from_config(layer.get_config())


def rebuild(
    network: keras.Model, replace: Callable[[Any], list], weights: Mapping[str, list] | None = None
) -> keras.Model:
    """A network whose layers are replaced by chains of layers; weights are copied by layer name.

    A network that is neither Sequential nor exactly of the class Functional is returned as it is.

    weights: name of a new layer → its weights, where they differ from those of the layer of that name.
    """
    before = random.getstate()  # Keras draws initial weights, which are replaced
    try:
        if isinstance(network, keras.Sequential):
            (x,) = network.inputs
            images = keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name)
            layers = [new for layer in network.layers for new in replace(layer)]
            rebuilt = keras.Sequential([images, *layers], name=network.name)
        elif type(network) is Functional:
            rebuilt = keras.models.clone_model(network, clone_function=replace, call_function=_call_chain)
        else:  # such as a class of another library, whose constructor makes its layers
            return network
    finally:
        random.setstate(before)
    for layer in rebuilt.layers:
        if layer.weights and not isinstance(layer, keras.Model):
            new_weights = (weights or {}).get(layer.name)
            layer.set_weights(new_weights or network.get_layer(layer.name).get_weights())
    return rebuilt


def _call_chain(chain: list, *args: Any, **kwargs: Any) -> Any:
    kwargs = {name: value for name, value in kwargs.items() if value is not None}  # such as BN's mask
    for layer in chain[:-1]:
        args = (layer(*args),)
    return chain[-1](*args, **kwargs) if chain else args[0]
