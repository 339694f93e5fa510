"""The views of evaluation as a Keras layer of plain arithmetic, to be exported with a backbone."""

from __future__ import annotations

import keras
import tensorflow as tf

from simsiam_tf.data import crops
from simsiam_tf.data.views import SMALL, Recipe


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
    def of(cls, recipe: Recipe, channels: int, **kwargs) -> Prepare:
        """As a recipe says, for images of so many channels."""
        mean, std = (
            v if len(v) == channels else (sum(v) / len(v),) * channels for v in (recipe.mean, recipe.std)
        )
        return cls(recipe.size, mean, std, **kwargs)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        x = tf.cast(images, tf.float32)
        height, width, channels = tf.shape(x)[1], tf.shape(x)[2], len(self.mean)
        new = self._resized(height, width)
        x = self._along(x, height, new[0], width * channels)  # [B, S, W · C]
        x = tf.transpose(tf.reshape(x, [-1, self.size, width, channels]), [0, 2, 1, 3])
        x = self._along(x, width, new[1], self.size * channels)
        x = tf.transpose(tf.reshape(x, [-1, self.size, self.size, channels]), [0, 2, 1, 3])
        x = tf.clip_by_value(tf.round(x), 0.0, 255.0)
        return (x / 255.0 - tf.constant(self.mean)) / tf.constant(self.std)

    def _resized(self, height: tf.Tensor, width: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The sides that an image is resized to before its centre is taken."""
        if self.size <= SMALL:
            return tf.constant(self.size), tf.constant(self.size)
        scale = (self.size * 256 / 224) / tf.cast(tf.minimum(height, width), tf.float32)
        return tuple(tf.cast(tf.round(tf.cast(n, tf.float32) * scale), tf.int32) for n in (height, width))

    def _along(self, x: tf.Tensor, old: tf.Tensor, new: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
        """Resizes the second axis of x from `old` to `new` and takes its centre: [B, size, row]."""
        whole = tf.cast(old, tf.float32)[None]
        weights = crops.resize_weights(tf.zeros([1]), whole, old, new)
        first = (new - self.size) // 2
        return tf.matmul(weights[:, first : first + self.size], tf.reshape(x, [-1, old, row]))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], self.size, self.size, len(self.mean))

    def get_config(self) -> dict:
        return {**super().get_config(), "size": self.size, "mean": self.mean, "std": self.std}
