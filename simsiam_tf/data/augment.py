"""The paper's augmentation as keras-cv layers with torchvision's semantics.

keras-cv's own layers of these names compute something else (another order, other ranges, zero
padding, no antialiasing), so these subclass its extension point. Each works as an ordinary
keras-cv layer with draws of its own; the pipeline instead calls

    layer.augment_images(images, layer.transformations(u, images))

with u, the layer's `draws` columns of the step's table of uniforms, so that a view is a
function of the step. Images are [B, H, W, C] in [0, 255]; C is 1 or 3.
"""

from __future__ import annotations

import math

import tensorflow as tf
from keras_cv.layers import VectorizedBaseImageAugmentationLayer

GRAY = (0.299, 0.587, 0.114)  # ITU-R 601, as PIL's "L"


class PaperLayer(VectorizedBaseImageAugmentationLayer):
    """A layer whose transformations are a function of uniforms. Always float32."""

    draws = 0

    def __init__(self, **kwargs) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def transformations(self, u: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """u: [B, draws] in [0, 1) → per-image parameters, each with leading axis B."""
        raise NotImplementedError

    def get_random_transformation_batch(self, batch_size, images=None, **kwargs) -> dict[str, tf.Tensor]:
        u = self._random_generator.uniform([batch_size, self.draws])
        return self.transformations(u, images)

    def augment_labels(self, labels, transformations, **kwargs) -> tf.Tensor:
        return labels


class RandomResizedCrop(PaperLayer):
    """A box of random area and aspect, resized with antialiasing to [size, size].

    Up to ten tries to fit a box, then the centre crop of the nearest aspect, as torchvision.

    Args:
        size: side of the output in pixels.
        area: smallest and largest share of the image's area.
        aspect: smallest and largest width / height.
    """

    TRIES = 10
    draws = 2 * TRIES + 2

    def __init__(self, size: int, area=(0.2, 1.0), aspect=(3 / 4, 4 / 3), **kwargs) -> None:
        super().__init__(**kwargs)
        self.size, self.area, self.aspect = size, tuple(area), tuple(aspect)

    def boxes(self, u: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        """u [B, 22], height and width (scalars or [B]) → float [B, 4]: top, left, h, w."""
        height = tf.cast(height, tf.float32) * tf.ones_like(u[:, 0])
        width = tf.cast(width, tf.float32) * tf.ones_like(u[:, 0])
        tries = self.TRIES
        area = (height * width)[:, None] * _between(u[:, :tries], *self.area)
        aspect = tf.exp(_between(u[:, tries:-2], *(math.log(a) for a in self.aspect)))
        w, h = tf.round(tf.sqrt(area * aspect)), tf.round(tf.sqrt(area / aspect))
        fits = (w > 0) & (h > 0) & (w <= width[:, None]) & (h <= height[:, None])
        first = tf.argmax(tf.cast(fits, tf.int32), axis=1)
        w, h = tf.gather(w, first, batch_dims=1), tf.gather(h, first, batch_dims=1)
        top = tf.floor(u[:, -2] * (height - h + 1))
        left = tf.floor(u[:, -1] * (width - w + 1))
        found = tf.stack([top, left, h, w], axis=1)
        # No try fitted: the largest centred box whose aspect is allowed.
        low, high = self.aspect
        h = tf.where(width / height < low, tf.round(width / low), height)
        w = tf.where(width / height > high, tf.round(height * high), width)
        centred = tf.stack([(height - h) // 2, (width - w) // 2, h, w], axis=1)
        return tf.where(tf.reduce_any(fits, axis=1)[:, None], found, centred)

    def transformations(self, u: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
        shape = tf.shape(images)
        return {"boxes": self.boxes(u, shape[1], shape[2])}

    def augment_images(self, images: tf.Tensor, transformations: dict, **kwargs) -> tf.Tensor:
        """Resizes as two products with banded matrices, one pair an image."""
        top, left, h, w = tf.unstack(transformations["boxes"], axis=1)
        shape = tf.shape(images)
        rows = resize_weights(top, h, shape[1], self.size)
        columns = resize_weights(left, w, shape[2], self.size)
        return two_sided(rows, tf.cast(images, tf.float32), columns)

    def crop_one(self, image: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
        """The same of one image [H, W, C] and one box [4]: cheaper where the image is large."""
        top, left, h, w = tf.unstack(tf.cast(box, tf.int32))
        crop = image[top : top + h, left : left + w]
        return tf.image.resize(crop, [self.size, self.size], antialias=True)

    def get_config(self) -> dict:
        return {
            **super().get_config(), "size": self.size, "area": self.area, "aspect": self.aspect,
        }  # fmt: skip


class RandomColorJitter(PaperLayer):
    """Brightness, contrast, saturation and hue, in a random order, with probability p.

    Args:
        brightness, contrast, saturation: x draws a factor from [1 − x, 1 + x].
        hue: x draws a shift from [−x, x], in turns.
        p: probability that an image is jittered at all.
    """

    draws = 9

    def __init__(self, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8, **kwargs) -> None:
        super().__init__(**kwargs)
        self.strengths = {
            "brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue,
        }  # fmt: skip
        self.p = p

    def transformations(self, u: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
        chosen = u[:, 0] < self.p
        strengths = tf.constant(list(self.strengths.values()))
        offset = tf.where(chosen[:, None], (2.0 * u[:, 1:5] - 1.0) * strengths, 0.0)
        # rank[b, op] is the place of op in image b's order: a uniform permutation.
        order = tf.argsort(u[:, 5:9], axis=1)
        rank = tf.argsort(order, axis=1)
        return {"factors": 1.0 + offset[:, :3], "hue": offset[:, 3], "rank": rank}

    def augment_images(self, images: tf.Tensor, transformations: dict, **kwargs) -> tf.Tensor:
        factors, rank = transformations["factors"], transformations["rank"]
        if images.shape[-1] == 1:  # gray images have no saturation and no hue
            order = tf.argsort(rank[:, :2], axis=1)
            for k in range(2):
                f = tf.gather(factors, order[:, k], batch_dims=1)
                images = blend(images, order[:, k], f)
            return images
        order = tf.argsort(rank[:, :3], axis=1)
        early = tf.gather(rank, order, batch_dims=1) < rank[:, 3:]  # before the hue's turn
        f = tf.gather(factors, order, batch_dims=1)
        # A blend with factor 1 changes nothing: shapes stay static on every accelerator.
        for k in range(3):
            images = blend(images, order[:, k], tf.where(early[:, k], f[:, k], 1.0))
        images = shift_hue(images, transformations["hue"])
        for k in range(3):
            images = blend(images, order[:, k], tf.where(early[:, k], 1.0, f[:, k]))
        return images

    def get_config(self) -> dict:
        return {**super().get_config(), **self.strengths, "p": self.p}


class RandomGrayscale(PaperLayer):
    """Replaces all channels by the luminance with probability p."""

    draws = 1

    def __init__(self, p: float = 0.2, **kwargs) -> None:
        super().__init__(**kwargs)
        self.p = p

    def transformations(self, u: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"chosen": u[:, 0] < self.p}

    def augment_images(self, images: tf.Tensor, transformations: dict, **kwargs) -> tf.Tensor:
        if images.shape[-1] == 1:
            return images
        chosen = transformations["chosen"][:, None, None, None]
        return tf.where(chosen, luminance(images), images)

    def get_config(self) -> dict:
        return {**super().get_config(), "p": self.p}


class RandomGaussianBlur(PaperLayer):
    """Gaussian blur with σ drawn from `sigma`, in pixels, with probability p.

    Edges are continued by their last pixel, as PIL does.
    """

    draws = 2

    def __init__(self, sigma=(0.1, 2.0), p: float = 0.5, **kwargs) -> None:
        super().__init__(**kwargs)
        self.sigma, self.p = tuple(sigma), p

    def transformations(self, u: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"chosen": u[:, 0] < self.p, "sigma": _between(u[:, 1], *self.sigma)}

    def augment_images(self, images: tf.Tensor, transformations: dict, **kwargs) -> tf.Tensor:
        sigma = tf.where(transformations["chosen"], transformations["sigma"], 1e-3)
        shape = tf.shape(images)
        radius = math.ceil(3.0 * self.sigma[1])
        rows = blur_weights(sigma, shape[1], radius)
        columns = blur_weights(sigma, shape[2], radius)
        return two_sided(rows, images, columns)

    def get_config(self) -> dict:
        return {**super().get_config(), "sigma": self.sigma, "p": self.p}


class RandomHorizontalFlip(PaperLayer):
    """Mirrors left and right with probability p."""

    draws = 1

    def __init__(self, p: float = 0.5, **kwargs) -> None:
        super().__init__(**kwargs)
        self.p = p

    def transformations(self, u: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"chosen": u[:, 0] < self.p}

    def augment_images(self, images: tf.Tensor, transformations: dict, **kwargs) -> tf.Tensor:
        chosen = transformations["chosen"][:, None, None, None]
        return tf.where(chosen, tf.reverse(images, [2]), images)

    def get_config(self) -> dict:
        return {**super().get_config(), "p": self.p}


def _between(u: tf.Tensor, low: float, high: float) -> tf.Tensor:
    return low + (high - low) * u


def luminance(images: tf.Tensor) -> tf.Tensor:
    """[B, H, W, C] → [B, H, W, 1]."""
    if images.shape[-1] == 1:
        return images
    return tf.reduce_sum(images * tf.constant(GRAY), axis=-1, keepdims=True)


def blend(images: tf.Tensor, op: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """factor · image + (1 − factor) · reference, clipped to [0, 255].

    op: int [B]; the reference is 0 for brightness, the image's mean luminance for contrast (1)
    and each pixel's luminance for saturation (2). factor: [B].
    """
    op, factor = op[:, None, None, None], factor[:, None, None, None]
    gray = luminance(images)
    mean = tf.reduce_mean(gray, axis=[1, 2, 3], keepdims=True)
    reference = tf.where(op == 0, 0.0, tf.where(op == 1, mean, gray))
    return tf.clip_by_value(factor * images + (1.0 - factor) * reference, 0.0, 255.0)


def shift_hue(images: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """Turns the hue of image b by shift[b] turns, keeping saturation and value."""
    h, s, v = tf.unstack(tf.image.rgb_to_hsv(images), axis=-1)
    h = tf.math.floormod(h + shift[:, None, None], 1.0)
    return tf.image.hsv_to_rgb(tf.stack([h, s, v], axis=-1))


def resize_weights(start, length, size: tf.Tensor, out: int) -> tf.Tensor:
    """Antialiased bilinear resize of [start, start + length) to `out` pixels, as a matrix.

    start, length: float [B]; size: pixels of the whole axis → [B, out, size], rows sum to 1.
    The filter is PIL's: a triangle as wide as the larger of the two pixel sizes.
    """
    start, length = start[:, None, None], length[:, None, None]
    scale = length / out
    centre = (tf.range(out, dtype=tf.float32)[None, :, None] + 0.5) * scale + start
    pixel = tf.range(size)[None, None, :]
    pixel = tf.cast(pixel, tf.float32)
    weight = tf.nn.relu(1.0 - tf.abs(pixel + 0.5 - centre) / tf.maximum(scale, 1.0))
    weight = tf.where((pixel >= start) & (pixel < start + length), weight, 0.0)
    return weight / tf.reduce_sum(weight, axis=2, keepdims=True)


def blur_weights(sigma: tf.Tensor, size: tf.Tensor, radius: int) -> tf.Tensor:
    """Gaussian blur along an axis of `size` pixels, as a matrix [B, size, size]."""
    offset = tf.range(-radius, radius + 1)
    taps = tf.exp(-0.5 * tf.square(tf.cast(offset, tf.float32) / sigma[:, None]))
    taps /= tf.reduce_sum(taps, axis=1, keepdims=True)
    source = tf.clip_by_value(tf.range(size)[None, :] + offset[:, None], 0, size - 1)
    place = tf.one_hot(source, size)  # [taps, size, size]
    return tf.einsum("bt,tij->bij", taps, place)


def two_sided(rows: tf.Tensor, images: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """rows · image · columnsᵀ, for every image and channel.

    rows: [B, h, H], images: [B, H, W, C], columns: [B, w, W] → [B, h, w, C].
    """
    b, height, width, channels = tf.unstack(tf.shape(images))
    h, w = tf.shape(rows)[1], tf.shape(columns)[1]
    x = tf.matmul(rows, tf.reshape(images, [b, height, width * channels]))
    x = tf.reshape(x, [b, h, width, channels])
    if images.shape[-1] == 1:
        x = tf.matmul(x[..., 0], columns, transpose_b=True)[..., None]
    else:
        x = tf.einsum("bvj,bhjc->bhvc", columns, x)
    x = tf.reshape(x, [b, h, w, channels])
    x.set_shape([images.shape[0], rows.shape[1], columns.shape[1], images.shape[-1]])
    return x
