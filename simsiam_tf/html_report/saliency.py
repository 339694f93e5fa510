"""Where in an image its features and those of another view agree."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

SIDE = 7  # pixels that a map should have at the least, to point at anything


def saliency(backbone: keras.Model, view: np.ndarray, other: np.ndarray) -> np.ndarray:
    """What speaks for the cosine between two views' features, place by place, on the first view.

    The deepest feature map of at least `SIDE` pixels a side times the cosine's gradient, summed over channels
    and cut off below 0: Grad-CAM (Selvaraju et al. 2017) with each place's own gradient instead of the
    map's mean (HiResCAM, Draelos & Carin 2020), which differs below the last map only.

    Args:
        backbone: functional, normalised images [B, S, S, C] → features [B, F].
        view, other: normalised views [B, S, S, C].

    Returns:
        float32 [B, S, S] in [0, 1]; zeros where nothing speaks for the similarity.

    Raises:
        ValueError: the backbone has no feature map.
    """
    encode = keras.Model(backbone.inputs, [_map_of(backbone, view.shape[1]), backbone.output])
    goal = tf.math.l2_normalize(tf.cast(backbone(other, training=False), tf.float32), axis=1)
    images = tf.convert_to_tensor(view)
    with tf.GradientTape() as tape:
        tape.watch(images)  # and with it the map, also where no weight comes before it
        maps, features = encode(images, training=False)
        cosine = tf.reduce_sum(goal * tf.math.l2_normalize(tf.cast(features, tf.float32), axis=1), axis=1)
    gradient = tf.cast(tape.gradient(cosine, maps), tf.float32)
    shown = tf.nn.relu(tf.reduce_sum(gradient * tf.cast(maps, tf.float32), axis=3, keepdims=True))
    shown = shown / tf.maximum(tf.reduce_max(shown, axis=(1, 2), keepdims=True), 1e-12)
    return tf.image.resize(shown, view.shape[1:3])[..., 0].numpy()


def _map_of(backbone: keras.Model, size: int) -> keras.KerasTensor:
    """The output of the deepest layer whose map has SIDE pixels, or else of the first with any."""
    found, probe = None, tf.zeros([1, size, size, backbone.input_shape[-1]])
    layers = [
        layer for layer in backbone.layers
        if len(layer.output.shape) == 4 and not isinstance(layer, keras.layers.InputLayer)
    ]  # fmt: skip
    if not layers:
        raise ValueError(f"{backbone.name} has no feature map before its features.")
    sides = keras.Model(backbone.inputs, [layer.output for layer in layers])
    for layer, made in zip(layers, keras.tree.flatten(sides(probe, training=False)), strict=True):
        if found is None or made.shape[1] >= min(SIDE, size):
            found = layer.output
    return found
