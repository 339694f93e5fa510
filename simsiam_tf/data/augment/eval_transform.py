"""The preprocessing of evaluation in keras.ops, so that an exported file needs stock Keras alone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from simsiam_tf.data.augment import crops
from simsiam_tf.data.augment.views import Augmentation, sides_before_centre


def preprocess(images: Any, augmentation: Augmentation) -> Any:
    """Images of any size → normalised centre views: what `Views.centre` and `Views.normalise` compute.

    Works on tensors and, while a functional model is built, on symbolic ones. The antialiased resize is
    two matrix products, which every format that a network is exported to can hold.

    images: [B, H, W, C] in [0, 255], integer or float. Returns float32 [B, size, size, C].
    """
    size, channels = augmentation.size, images.shape[-1]
    mean, std = (
        np.array(v if len(v) == channels else [sum(v) / len(v)] * channels)
        for v in (augmentation.mean, augmentation.std)
    )
    # NOTE: the ReLU changes nothing. TensorFlow would transpose the bytes before a bare cast, where
    # oneDNN complains.
    x = ops.transpose(ops.relu(ops.cast(images, "float32")), [0, 3, 1, 2])
    # A symbolic image does not tell its size, its pixels do.
    rows, columns = ops.ones_like(x[0, 0, :, 0]), ops.ones_like(x[0, 0, 0, :])
    height, width = (ops.cast(ops.sum(pixels), "int32") for pixels in (rows, columns))
    new_height, new_width = sides_before_centre(height, width, size)
    # The width first, as `crops.centre`.
    x = crops.levels(ops.matmul(x, ops.transpose(_resize_matrix(columns, width, new_width, size))))
    x = crops.levels(ops.matmul(_resize_matrix(rows, height, new_height, size), x))
    normalise = keras.layers.Rescaling(
        (1 / (255 * std)).tolist(), (-mean / std).tolist(), dtype="float32", name="normalise"
    )
    return normalise(ops.transpose(x, [0, 2, 3, 1]))


def _resize_matrix(pixels: Any, old: Any, new: Any, size: int) -> Any:
    """The middle `size` rows of an antialiased bilinear resize of an axis, [size, old]; rows sum to 1.

    The filter is PIL's: a triangle as wide as the larger of the two pixel sizes.

    pixels: float32 ones [old]. old, new: sides in pixels, int32 scalars.
    """
    scale = ops.cast(old, "float32") / ops.cast(new, "float32")
    first = ops.cast(crops.centre_start(new, size), "float32")
    centre = (first + np.arange(size, dtype=np.float32)[:, None] + 0.5) * scale
    distance = ops.absolute(ops.cumsum(pixels) - 0.5 - centre)
    weight = ops.relu(1.0 - distance / ops.maximum(scale, 1.0))
    return weight / ops.sum(weight, axis=1, keepdims=True)
