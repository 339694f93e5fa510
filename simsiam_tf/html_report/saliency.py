"""The regions of an image by which its features agree with those of another view."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

SIDE = 7  # pixels a side that a feature map needs to locate regions


def saliency(backbone: keras.Model, view: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The contribution of each region of a view to the cosine of its features with another view's.

    The deepest feature map of at least `SIDE` pixels a side, times the cosine's gradient, summed over
    channels and cut off below 0: Grad-CAM (Selvaraju et al. 2017) with each pixel's own gradient instead of
    the map's mean (HiResCAM, Draelos & Carin 2020). Both agree on the last map before the features.

    view, other: normalised, [B, S, S, C]. Returns float32 [B, S, S] in [0, 1]; zeros where no region
    contributes. Raises ValueError for a backbone without a feature map.
    """
    encode = keras.Model(backbone.inputs, [_feature_map(backbone, view.shape[1]), backbone.output])
    target = tf.math.l2_normalize(tf.cast(backbone(other, training=False), tf.float32), axis=1)
    images = tf.convert_to_tensor(view)
    with tf.GradientTape() as tape:
        tape.watch(images)  # and so the map, even where no weight comes before it
        maps, features = encode(images, training=False)
        cosine = tf.reduce_sum(target * tf.math.l2_normalize(tf.cast(features, tf.float32), axis=1), axis=1)
    gradient = tf.cast(tape.gradient(cosine, maps), tf.float32)
    heat = tf.nn.relu(tf.reduce_sum(gradient * tf.cast(maps, tf.float32), axis=3, keepdims=True))
    heat = heat / tf.maximum(tf.reduce_max(heat, axis=(1, 2), keepdims=True), 1e-12)
    return tf.image.resize(heat, view.shape[1:3])[..., 0].numpy()


def _feature_map(backbone: keras.Model, size: int) -> keras.KerasTensor:
    """The output of the deepest layer whose map has at least SIDE pixels a side, or else of the first map.

    size: pixels of a view's side. For views smaller than SIDE, the map has to be as large as they are.
    """
    layers = [
        layer for layer in backbone.layers
        if len(layer.output.shape) == 4 and not isinstance(layer, keras.layers.InputLayer)
    ]  # fmt: skip
    if not layers:
        raise ValueError(f"{backbone.name} has no feature map before its features.")
    every_map = keras.Model(backbone.inputs, [layer.output for layer in layers])
    maps = keras.tree.flatten(every_map(tf.zeros([1, size, size, backbone.input_shape[-1]]), training=False))
    large = [layer for layer, m in zip(layers, maps, strict=True) if m.shape[1] >= min(SIDE, size)]
    return (large or layers[:1])[-1].output
