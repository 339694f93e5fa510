"""Finished features: means over the quarters of the last maps, whitened by the last layer of the network.

The means over whole maps are the *pooled* features, with which a backbone is trained; they tell what an image
shows. The means over the quarters of maps tell where, too.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

NAME = "whitening"  # name of the layer that whitens
QUARTERS = "quarters_{}"  # names of the layers that compute the means; quarters_0 reads the last map
MAX_FEATURES = 2048  # most features by quarters
USUAL_SIDE = 224  # pixels of the images for which maps are compared, where a network takes any size


def read_quarters(backbone: keras.Model, size: int) -> keras.Model:
    """The backbone with features by quarters [B, F'], for images of `size` pixels; its layers are shared.

    The maps read are the outputs of the last residual block at each of the two smallest sizes of maps; the
    second only if there are at most `MAX_FEATURES` means in all. Layers behind these blocks, such as the wide
    last convolution of an EfficientNet, serve the classifier that a network was trained with, and are not
    read. A network without residual blocks is read at its last maps. Quarters of a map with an odd side
    overlap; a map of one pixel has one mean.

    The backbone is returned as it is where it does not end in an average of maps, or where all its maps have
    one pixel or too many channels.
    """
    parts, sides, features = [], [], 0
    for i, tensor in enumerate(_last_maps(backbone)):
        (side,), channels = _sides(backbone, [tensor], size), tensor.shape[-1]
        count = 4 * channels if side > 1 else channels
        if features + count > MAX_FEATURES:
            break
        features, name = features + count, QUARTERS.format(i)
        sides.append(side)
        if side == 1:
            parts.append(keras.layers.GlobalAveragePooling2D(dtype="float32", name=name)(tensor))
            continue
        # Two windows of half the side, rounded up, which begin at 0 and at half the side, rounded down.
        pool = keras.layers.AveragePooling2D(-(-side // 2), side // 2, dtype="float32", name=name)
        row = keras.layers.Reshape((count,), dtype="float32", name=f"{name}_row")
        parts.append(row(pool(tensor)))
    if max(sides, default=1) == 1:
        return backbone
    join = keras.layers.Concatenate(dtype="float32", name="quarters")
    return keras.Model(backbone.inputs[0], join(parts) if len(parts) > 1 else parts[0], name=backbone.name)


def add_whitening(network: keras.Model, mean: np.ndarray, matrix: np.ndarray) -> keras.Model:
    """The network with features (f − mean) · matrix, by a Dense layer of float32 in stock Keras.

    network: images → features f [B, F]; its layers are shared. mean: [F]. matrix: [F, F].
    """
    matrix = np.asarray(matrix, np.float64)
    layer = keras.layers.Dense(
        len(matrix), name=NAME, dtype="float32", trainable=False, kernel_initializer="zeros"
    )
    features: Any = network.outputs[0]
    whitened = keras.Model(network.inputs[0], layer(features), name=network.name)
    layer.set_weights([matrix, -np.asarray(mean, np.float64) @ matrix])
    return whitened


def whitening_layer(network: keras.Model) -> keras.layers.Dense | None:
    """The layer that `add_whitening` added; None where the network does not end in one."""
    last = network.layers[-1] if getattr(network, "layers", None) else None
    is_whitening = type(last) is keras.layers.Dense and last.name == NAME
    return last if is_whitening and last.output is network.outputs[0] else None


def without_whitening(network: keras.Model) -> keras.Model:
    """The backbone with pooled features, whose layers are shared; the network itself if not finished."""
    layer = whitening_layer(network)
    if layer is None:
        return network
    features = layer.input
    pool = _quarters_layer(network)
    if pool is not None:
        features = keras.layers.GlobalAveragePooling2D(name="pool")(pool.input)
    return keras.Model(network.inputs[0], features, name=network.name)


def finish_like(network: keras.Model, backbone: keras.Model, size: int) -> keras.Model:
    """The backbone with the last layers of a finished network; the backbone if `network` is not finished.

    backbone: a network with pooled features, of the same architecture. size: side of its images in pixels.

    Raises:
        ValueError: at this size, the backbone gives another number of features than can be whitened.
    """
    layer = whitening_layer(network)
    if layer is None:
        return backbone
    body = backbone if _quarters_layer(network) is None else read_quarters(backbone, size)
    matrix, bias = layer.get_weights()
    if body.output_shape[-1] != len(matrix):
        raise ValueError(
            f"{body.output_shape[-1]} features are read, of which {len(matrix)} can be whitened."
        )
    finished = add_whitening(body, np.zeros(len(matrix)), np.zeros(matrix.shape))
    finished.layers[-1].set_weights([matrix, bias])
    return finished


def reads_quarters(network: keras.Model) -> bool:
    """Whether a network is finished with features by quarters, and so for images of one size."""
    return whitening_layer(network) is not None and _quarters_layer(network) is not None


def _quarters_layer(network: keras.Model) -> keras.layers.Layer | None:
    names = {layer.name: layer for layer in network.layers}
    return names.get(QUARTERS.format(0))


def _last_maps(backbone: keras.Model) -> list[Any]:
    """The last maps [B, h, w, F] of each of the two smallest sizes, the smallest first.

    Empty where the features are not the mean of maps.
    """
    last = backbone.layers[-1] if getattr(backbone, "layers", None) else None
    if type(last) is not keras.layers.GlobalAveragePooling2D or last.output is not backbone.outputs[0]:
        return []
    # NOTE: the inner maps of a network in one layer, as `to_features` may call it, are of other inputs.
    layers = [x for x in backbone.layers if not isinstance(x, keras.Model | keras.layers.InputLayer)]
    maps = [layer for layer in layers if len(getattr(layer.output, "shape", ())) == 4]
    blocks = [_activated(layer, backbone) for layer in maps if _ends_block(layer)]
    tensors = [last.input, *(blocks or [layer.output for layer in maps])]
    by_side = dict(zip(_sides(backbone, tensors), tensors, strict=True))  # of equal sides the last counts
    return [by_side[side] for side in sorted(by_side)[:2]]


def _ends_block(layer: keras.layers.Layer) -> bool:
    """Whether a layer is the sum of a residual block, or a layer of layers that may be a residual block."""
    if isinstance(layer, keras.layers.Add):
        return True
    before, after = (keras.tree.flatten(tensors)[0].shape[-1] for tensors in (layer.input, layer.output))
    return before == after and len(list(layer._flatten_layers(include_self=False))) > 0


def _activated(layer: keras.layers.Layer, backbone: keras.Model) -> Any:
    """A layer's output after its activation, if an activation is the only layer that reads the output."""
    layers = {id(other) for other in backbone.layers}
    readers = [node.operation for node in layer._outbound_nodes if id(node.operation) in layers]
    is_activation = len(readers) == 1 and isinstance(readers[0], keras.layers.Activation | keras.layers.ReLU)
    return readers[0].output if is_activation else layer.output


def _sides(backbone: keras.Model, tensors: list[Any], size: int | None = None) -> list[int]:
    """Heights in pixels of maps [B, h, w, F] of the backbone, for images of `size` pixels.

    size: when None, the only size that the backbone takes, or else `USUAL_SIDE`.
    """
    size = size or backbone.input_shape[1] or USUAL_SIDE
    shapes: Any = keras.Model(backbone.inputs[0], tensors).compute_output_shape(
        (1, size, size, backbone.input_shape[-1])
    )
    return [shape[1] for shape in shapes]
