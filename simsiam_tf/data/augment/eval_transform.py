"""The views of evaluation as a Keras layer of plain arithmetic, to be exported with a backbone."""

from __future__ import annotations

import keras
import tensorflow as tf

from simsiam_tf.data.augment import crops
from simsiam_tf.data.augment.views import Augmentation, sides_before_centre


@keras.saving.register_keras_serializable("simsiam_tf")
class Prepare(keras.layers.Layer):
    """Images of any size → normalised centre views: what `Views.centre` and `Views.normalise` do.

    The antialiased resize is written as two matrix products, which every format that a network is
    exported to can hold.

    Args:
        size: side of the views in pixels.
        mean, std: of each channel, for values in [0, 1].

    Call: [B, H, W, C] in [0, 255], integer or float → float32 [B, size, size, C].
    """

    def __init__(self, size: int, mean: tuple, std: tuple, **kwargs) -> None:
        super().__init__(dtype="float32", autocast=False, **{k: v for k, v in kwargs.items() if k != "dtype"})
        self.size, self.mean, self.std = size, tuple(mean), tuple(std)

    @classmethod
    def of(cls, augmentation: Augmentation, channels: int, **kwargs) -> Prepare:
        """As an augmentation says, for images of so many channels."""
        mean, std = (
            v if len(v) == channels else (sum(v) / len(v),) * channels
            for v in (augmentation.mean, augmentation.std)
        )
        return cls(augmentation.size, mean, std, **kwargs)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        x = crops.floats(images)
        height, width, channels = tf.shape(x)[1], tf.shape(x)[2], len(self.mean)
        new = sides_before_centre(height, width, self.size)
        # The width first, as `crops.centre`.
        x = tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [-1, width, height * channels])
        x = tf.reshape(self._along(x, width, new[1]), [-1, self.size, height, channels])
        x = tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [-1, height, self.size * channels])
        x = tf.reshape(self._along(x, height, new[0]), [-1, self.size, self.size, channels])
        return (x / 255.0 - tf.constant(self.mean)) / tf.constant(self.std)

    def _along(self, x: tf.Tensor, old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
        """Resizes the second axis of x from `old` to `new` and takes its centre: [B, size, row], rounded."""
        whole = tf.cast(old, tf.float32)[None]
        rows = crops.centre_start(new, self.size), self.size
        return crops.levels(tf.matmul(crops.resize_weights(tf.zeros([1]), whole, old, new, rows), x))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], self.size, self.size, len(self.mean))

    def get_config(self) -> dict:
        return {**super().get_config(), "size": self.size, "mean": self.mean, "std": self.std}
