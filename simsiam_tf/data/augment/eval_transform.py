"""The centre views of evaluation (Sec. 3), as torchvision's Resize and CenterCrop compute them of PIL images.

The filter of the resize is a triangle as wide as the larger of the two pixel sizes, and values are rounded
once after the width and once after the height.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from simsiam_tf.data.augment.crops import resize_weights

if TYPE_CHECKING:
    from simsiam_tf.data.augment.views import Augmentation

SMALL = 64  # pixels; views of at most this side are resized without a crop


def sides_before_centre(height: tf.Tensor, width: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Sides that an image is resized to before its middle size × size pixels are taken: int32 scalars.

    The shorter side becomes 256/224 of the size. The other is int(short · longer / shorter), as in Resize.
    """
    if size <= SMALL:
        return tf.constant(size), tf.constant(size)
    short = round(size * 256 / 224)
    shorter = tf.minimum(height, width)
    most = 2**30 // short  # times as long as wide: what int32 holds

    def resized(side: tf.Tensor) -> tf.Tensor:
        rest = short * tf.math.floormod(side, shorter) // shorter
        return short * tf.minimum(side // shorter, most) + rest

    return resized(height), resized(width)


def centre(images: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes with antialiasing and takes the middle: [B, H, W, C] in [0, 255] → uint8 [B, size, size, C].

    Only the pixels that the middle is made of are touched, so that memory does not depend on how long the
    other side is.
    """
    sides = tf.unstack(tf.shape(images)[1:3])
    resized = sides_before_centre(*sides, size=size)
    # First the rows that the middle needs, so that no others are resized along the width.
    (top, rows), (left, columns) = (_needed(n, m, size) for n, m in zip(sides, resized, strict=True))
    x = _transposable(images[:, top : top + rows, left : left + columns])
    x = tf.transpose(x, [0, 2, 1, 3])
    x = _middle(x, sides[1], resized[1], left, size)
    x = _middle(tf.transpose(x, [0, 2, 1, 3]), sides[0], resized[0], top, size)
    return tf.ensure_shape(tf.cast(x, tf.uint8), [None, size, size, images.shape[-1]])


def _transposable(images: tf.Tensor) -> tf.Tensor:
    """Values from 0 on of any dtype as float32."""
    # NOTE: TensorFlow would move a transpose before a bare cast, where oneDNN complains of uint8.
    return tf.nn.relu(tf.cast(images, tf.float32))


def _middle_start(side: tf.Tensor, size: int) -> tf.Tensor:
    """The first of the middle `size` of `side` pixels: halves go to even numbers, as in CenterCrop."""
    gap = side - size
    odd = [tf.equal(tf.math.floormod(n, 2), 1) for n in (gap, gap // 2)]
    return gap // 2 + tf.where(odd[0] & odd[1], 1, 0)


def _needed(side: tf.Tensor, resized: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """First pixel and number of the pixels that the middle `size` of `resized` pixels are made of."""
    scale = tf.cast(side, tf.float64) / tf.cast(resized, tf.float64)
    start = tf.cast(_middle_start(resized, size), tf.float64)
    reach = tf.maximum(scale, 1.0) + 1.0
    first = tf.cast(tf.maximum(tf.floor(start * scale - reach), 0.0), tf.int32)
    last = tf.cast(tf.math.ceil((start + size) * scale + reach), tf.int32)
    return first, tf.minimum(last, side) - first


def _middle(x: tf.Tensor, side: tf.Tensor, resized: tf.Tensor, first: tf.Tensor, size: int) -> tf.Tensor:
    """[B, n, R, C], pixels of an axis from `first` on → the middle of the resized axis, [B, size, R, C]."""
    length, row, channels = tf.unstack(tf.shape(x)[1:])
    scale = tf.cast(resized, tf.float64) / tf.cast(side, tf.float64)
    shift = tf.cast(first, tf.float64) * scale - tf.cast(_middle_start(resized, size), tf.float64)
    y = tf.raw_ops.ScaleAndTranslate(
        images=tf.reshape(x, [-1, length, 1, row * channels]), size=[size, 1],
        scale=tf.stack([tf.cast(scale, tf.float32), 1.0]),
        translation=tf.stack([tf.cast(shift, tf.float32), 0.0]), kernel_type="triangle", antialias=True,
    )  # fmt: skip
    return tf.reshape(_rounded(y), [-1, size, row, channels])


def _rounded(x: tf.Tensor) -> tf.Tensor:
    """Whole levels in [0, 255]; halves go up, also those that float32 leaves a little below."""
    return tf.clip_by_value(tf.floor(x + 0.5002), 0.0, 255.0)


@keras.saving.register_keras_serializable("simsiam_tf")
class EvalTransform(keras.layers.Layer):
    """`Views.centre` and `Views.normalise` as a Keras layer, to be exported with a backbone.

    The antialiased resize is written as two matrix products, which every export format can hold.

    Args:
        size: side of the views in pixels.
        mean, std: of each channel, for values in [0, 1].

    Call: [B, H, W, C] in [0, 255], integer or float → float32 [B, size, size, C].
    """

    def __init__(self, size: int, mean: tuple[float, ...], std: tuple[float, ...], **kwargs: Any) -> None:
        super().__init__(dtype="float32", autocast=False, **{k: v for k, v in kwargs.items() if k != "dtype"})
        self.size, self.mean, self.std = size, tuple(mean), tuple(std)

    @classmethod
    def of(cls, augmentation: Augmentation, channels: int, **kwargs: Any) -> EvalTransform:
        """The layer of an augmentation, for images of so many channels."""
        mean, std = augmentation.statistics(channels)
        return cls(augmentation.size, mean, std, **kwargs)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        x = _transposable(images)
        height, width, channels = tf.shape(x)[1], tf.shape(x)[2], len(self.mean)
        resized = sides_before_centre(height, width, self.size)
        # The width first, as `centre`.
        x = tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [-1, width, height * channels])
        x = tf.reshape(self._middle(x, width, resized[1]), [-1, self.size, height, channels])
        x = tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [-1, height, self.size * channels])
        x = tf.reshape(self._middle(x, height, resized[0]), [-1, self.size, self.size, channels])
        return (x / 255.0 - tf.constant(self.mean)) / tf.constant(self.std)

    def _middle(self, x: tf.Tensor, side: tf.Tensor, resized: tf.Tensor) -> tf.Tensor:
        """Resizes the second axis of x and takes its middle: [B, size, row], rounded."""
        rows = _middle_start(resized, self.size), self.size
        weights = resize_weights(tf.zeros([1]), tf.cast(side, tf.float32)[None], side, resized, rows)
        return _rounded(tf.matmul(weights, x))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], self.size, self.size, len(self.mean))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "mean": self.mean, "std": self.std}
