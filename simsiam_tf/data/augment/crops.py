"""Random resized crops: boxes of random area and aspect, resized with antialiasing."""

from __future__ import annotations

import math

import tensorflow as tf

from simsiam_tf.data.augment.keras_cv_layer import PaperLayer

TRIES = 10


class RandomResizedCrop(PaperLayer):
    """A box of random area and aspect, resized with antialiasing to [size, size].

    Ten boxes are tried; where none fits, the centre crop of the nearest allowed aspect is taken, as in
    torchvision.

    area: smallest and largest share of the image's area. aspect: smallest and largest width / height.
    """

    draws = 2 * TRIES + 2

    def __init__(
        self,
        size: int,
        area: tuple[float, float] = (0.2, 1.0),
        aspect: tuple[float, float] = (3 / 4, 4 / 3),
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.size, self.area, self.aspect = size, tuple(area), tuple(aspect)

    def tried_sides(self, u: tf.Tensor) -> tf.Tensor:
        """u [B, draws] → [B, 10, 2]: heights and widths to try, divided by √(image height · image width)."""
        share = between(u[:, :TRIES], *self.area)
        ratio = tf.exp(between(u[:, TRIES : 2 * TRIES], *(math.log(a) for a in self.aspect)))
        return tf.sqrt(tf.stack([share / ratio, share * ratio], axis=-1))

    def boxes(self, tried: tf.Tensor, place: tf.Tensor, height, width) -> tf.Tensor:
        """The first box that fits, at a uniform place, as in torchvision's get_params.

        tried: [B, 10, 2] from `tried_sides`. place: [B, 2] uniforms of top and left, the last two draws.
        height, width: of the images in pixels, scalars or [B]. Returns float [B, 4], in pixels: top, left,
        height, width; where nothing fits, the largest box in the middle whose aspect is allowed.
        """
        image = tf.stack([tf.cast(height, tf.float32), tf.cast(width, tf.float32)], axis=-1)
        each = tf.expand_dims(image, -2)  # for every try
        sides = tf.round(tried * tf.sqrt(tf.reduce_prod(each, axis=-1, keepdims=True)))
        fits = tf.reduce_all((sides > 0) & (sides <= each), axis=-1)
        size = tf.gather(sides, tf.argmax(tf.cast(fits, tf.int32), axis=1), batch_dims=1)
        corner = tf.floor(place * (image - size + 1))
        low, high = self.aspect
        largest = tf.minimum(image, tf.round(tf.reverse(image, [-1]) * tf.constant([1 / low, high])))
        middle = tf.concat([(image - largest) // 2, largest], axis=-1)
        return tf.where(tf.reduce_any(fits, axis=1)[:, None], tf.concat([corner, size], axis=1), middle)

    def transformations(self, u: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
        shape = tf.shape(images)
        return {"boxes": self.boxes(self.tried_sides(u), u[:, -2:], shape[1], shape[2])}

    def augment_images(self, images: tf.Tensor, transformations: dict, **kwargs) -> tf.Tensor:
        """Crops of a batch by two products with banded matrices, a pair for each image: float32."""
        top, left, h, w = tf.unstack(transformations["boxes"], axis=1)
        batch, height, width, channels = tf.unstack(tf.shape(images))
        rows = resize_weights(top, h, height, self.size)
        columns = resize_weights(left, w, width, self.size)
        x = tf.reshape(tf.cast(images, tf.float32), [batch, height, width * channels])
        x = tf.reshape(tf.matmul(rows, x), [batch, self.size, width, channels])
        if images.shape[-1] == 1:
            x = tf.expand_dims(tf.matmul(tf.squeeze(x, -1), columns, transpose_b=True), -1)
        else:
            x = tf.einsum("bvj,bhjc->bhvc", columns, x)
        return tf.ensure_shape(x, [images.shape[0], self.size, self.size, images.shape[-1]])

    def crop_of_one(self, image: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
        """The crop of one image [H, W, C] by a box [4], float32; for large images cheaper than products."""
        top, left, h, w = tf.unstack(tf.cast(box, tf.int32))
        crop = resize(image[top : top + h, left : left + w], self.size, self.size)
        return tf.ensure_shape(crop, [self.size, self.size, image.shape[-1]])


def between(u: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """u in [0, 1) → [low, high)."""
    return low + (high - low) * u


def resize(image: tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    """Antialiased bilinear resize of one image [H, W, C] → float32 [height, width, C].

    Equal to `tf.image.resize(…, antialias=True)` and twice as fast.
    """
    x = image[None]
    for size in (height, width):
        scale = tf.cast(size, tf.float32) / tf.cast(tf.shape(x)[1], tf.float32)
        x = tf.transpose(_resize_rows(x, size, scale), [0, 2, 1, 3])
    return tf.ensure_shape(x[0], [None, None, image.shape[-1]])


def _resize_rows(x: tf.Tensor, size: int | tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Antialiased bilinear resize of the height alone, [B, H, W, C] → [B, size, W, C], by a float32 scale."""
    batch, height, width, channels = tf.unstack(tf.shape(x))
    # NOTE: the op sees one column whose pixels have W · C channels, of which it sums many at a time.
    y = tf.raw_ops.ScaleAndTranslate(
        images=tf.reshape(x, [batch, height, 1, width * channels]), size=[size, 1],
        scale=tf.stack([scale, 1.0]), translation=[0.0, 0.0], kernel_type="triangle", antialias=True,
    )  # fmt: skip
    return tf.reshape(y, [batch, size, width, channels])


def resize_weights(start: tf.Tensor, length: tf.Tensor, size: tf.Tensor, out: int) -> tf.Tensor:
    """Resize of pixels [start, start + length) to `out` pixels as matrices [B, out, size]; rows sum to 1.

    start, length: float [B], whole numbers or not; size: pixels of the axis. The filter is PIL's antialiased
    bilinear one: a triangle whose half width is a pixel before or after the resize, whichever is larger.
    """
    start, length = start[:, None, None], length[:, None, None]
    scale = length / tf.cast(out, tf.float32)
    centre = (tf.range(out, dtype=tf.float32)[None, :, None] + 0.5) * scale + start
    pixel = tf.cast(tf.range(size), tf.float32)[None, None, :]
    weight = tf.nn.relu(1.0 - tf.abs(pixel + 0.5 - centre) / tf.maximum(scale, 1.0))
    weight = tf.where((pixel > start - 1) & (pixel < start + length), weight, 0.0)
    return weight / tf.reduce_sum(weight, axis=2, keepdims=True)
