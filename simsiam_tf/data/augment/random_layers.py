"""The augmentation after the crop, as keras-cv layers with torchvision's semantics.

keras-cv's own layers of like names compute something else (another order, other ranges, zero padding).
`keras_cv_layer` says how a layer is used.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from simsiam_tf.data.augment.crops import between
from simsiam_tf.data.augment.keras_cv_layer import PaperLayer, Planes, Stage

GRAY = (0.299, 0.587, 0.114)  # ITU-R 601, as PIL's "L"
OPERATORS = ("brightness", "contrast", "saturation", "hue")


class RandomColorJitter(PaperLayer):
    """Brightness, contrast, saturation and hue, in a random order, with probability p.

    brightness, contrast, saturation: x draws a factor from [1 − x, 1 + x]. hue: x draws a shift from [−x, x],
    in turns. Gray images get brightness and contrast alone. In images of other than 1 or 3 channels each
    channel gets a brightness, then a contrast, of its own.
    """

    draws = 9

    def __init__(self, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8, **kwargs) -> None:
        super().__init__(**kwargs)
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        self.p = p

    def transformations(self, u: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
        chosen = u[:, 0] < self.p
        strengths = tf.constant([getattr(self, name) for name in OPERATORS])
        if images.shape[-1] not in (1, 3):
            # Channel c gets u + c · v mod 1, with independent u and v: pairwise independent draws, [C, B, 2].
            channel = tf.range(images.shape[-1], dtype=tf.float32)[:, None, None]
            drawn = tf.math.floormod(u[None, :, 1:3] + channel * u[None, :, 3:5], 1.0)
            offset = tf.where(chosen[:, None], (2.0 * drawn - 1.0) * strengths[:2], 0.0)
            return {"channel_factors": 1.0 + offset}
        offset = tf.where(chosen[:, None], (2.0 * u[:, 1:5] - 1.0) * strengths, 0.0)
        # rank[b, op] is the place of op in image b's order: a uniform permutation.
        rank = tf.argsort(tf.argsort(u[:, 5:9], axis=1), axis=1)
        return {"factors": 1.0 + offset[:, :3], "hue": offset[:, 3], "rank": rank}

    def stages(self, channels: int) -> list[Stage]:
        if channels not in (1, 3):
            return [_jitter_channels]
        if channels == 1:  # gray images have no saturation and no hue
            return [lambda x, t: _blends(x, t, 2)]
        # Each of the two `_blends` applies every operator, with factor 1 (no change) where it is the other's:
        # so shapes are static.
        return [
            lambda x, t: _blends(x, t, 3, after_hue=False),
            lambda x, t: _shift_hue(x, t["hue"]),
            lambda x, t: _blends(x, t, 3, after_hue=True),
        ]


def _jitter_channels(x: Planes, t: dict[str, tf.Tensor]) -> Planes:
    """Brightness, then contrast, of each channel by itself."""

    def jittered(plane: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
        brightness, contrast = _per_image(factors[:, 0]), _per_image(factors[:, 1])
        plane = tf.clip_by_value(brightness * plane, 0.0, 255.0)
        mean = tf.reduce_mean(plane, axis=[1, 2], keepdims=True)
        return tf.clip_by_value(contrast * plane + (1.0 - contrast) * mean, 0.0, 255.0)

    return [
        jittered(plane, factors) for plane, factors in zip(x, tf.unstack(t["channel_factors"]), strict=True)
    ]


def _blends(x: Planes, t: dict[str, tf.Tensor], count: int, after_hue: bool | None = None) -> Planes:
    """Applies the first `count` operators in each image's order.

    after_hue: True: only those after the hue; False: only those before it; None: all.
    """
    order = tf.argsort(t["rank"][:, :count], axis=1)
    factors = tf.gather(t["factors"], order, batch_dims=1)
    if after_hue is not None:
        after = tf.gather(t["rank"], order, batch_dims=1) > t["rank"][:, 3:]
        factors = tf.where(after == after_hue, factors, 1.0)
    for k in range(count):
        x = _blend(x, order[:, k], factors[:, k])
    return x


class RandomGaussianBlur(PaperLayer):
    """Gaussian blur with σ drawn from the range `sigma`, in pixels, with probability p.

    Outside the image, its edge pixels are repeated, as in PIL. products: blur along an axis by a product with
    a matrix for each image, which for small images on a CPU takes a third to a fifth of the time of shifted
    sums.
    """

    draws = 2

    def __init__(
        self, sigma: tuple[float, float] = (0.1, 2.0), p: float = 0.5, products: bool = False, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.sigma, self.p, self.products = tuple(sigma), p, products

    def transformations(self, u: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"chosen": u[:, 0] < self.p, "sigma": between(u[:, 1], *self.sigma)}

    def stages(self, channels: int) -> list[Stage]:
        radius = math.ceil(3.0 * self.sigma[1])

        def taps(t: dict[str, tf.Tensor]) -> tf.Tensor:
            return _blur_taps(tf.where(t["chosen"], t["sigma"], 1e-3), radius)

        def along(axis: int) -> list[Stage]:
            if self.products:
                return [lambda x, t: _convolve_by_products(x, taps(t), axis)]
            return [lambda x, t: _pad(x, radius, axis), lambda x, t: _convolve(x, taps(t), axis)]

        return along(1) + along(2)


class _ChosenLayer(PaperLayer):
    """A layer that changes an image in one way with probability p."""

    draws = 1

    def __init__(self, p: float = 0.5, **kwargs) -> None:
        super().__init__(**kwargs)
        self.p = p

    def transformations(self, u: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"chosen": u[:, 0] < self.p}

    def changed(self, x: Planes) -> Planes:
        """The planes of the images, as if all were chosen."""
        raise NotImplementedError

    def stages(self, channels: int) -> list[Stage]:
        def stage(x: Planes, t: dict[str, tf.Tensor]) -> Planes:
            chosen, pairs = _per_image(t["chosen"]), zip(self.changed(x), x, strict=True)
            return [tf.where(chosen, new, old) for new, old in pairs]

        return [stage]


class RandomGrayscale(_ChosenLayer):
    """Replaces the three colours by the luminance with probability p; other images stay."""

    def __init__(self, p: float = 0.2, **kwargs) -> None:
        super().__init__(p, **kwargs)

    def stages(self, channels: int) -> list[Stage]:
        return super().stages(channels) if channels == 3 else []

    def changed(self, x: Planes) -> Planes:
        return [_luminance(x)] * 3


class RandomSolarization(_ChosenLayer):
    """Inverts all values in [threshold, 255], with probability p, as in BYOL (arXiv 2006.07733, App. B)."""

    def __init__(self, p: float = 0.2, threshold: float = 128.0, **kwargs) -> None:
        super().__init__(p, **kwargs)
        self.threshold = threshold

    def changed(self, x: Planes) -> Planes:
        return [tf.where(plane >= self.threshold, 255.0 - plane, plane) for plane in x]


class RandomHorizontalFlip(_ChosenLayer):
    """Mirrors left and right with probability p."""

    def changed(self, x: Planes) -> Planes:
        return [plane[:, :, ::-1] for plane in x]


class RandomVerticalFlip(_ChosenLayer):
    """Mirrors top and bottom with probability p, for pictures from above or through a microscope."""

    def changed(self, x: Planes) -> Planes:
        return [plane[:, ::-1] for plane in x]


class RandomQuarterTurn(PaperLayer):
    """Turns square images by 90, 180 or 270 degrees, each as likely, with probability p."""

    draws = 2

    def __init__(self, p: float = 0.5, **kwargs) -> None:
        super().__init__(**kwargs)
        self.p = p

    def transformations(self, u: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
        quarters = 1 + tf.cast(3.0 * u[:, 1], tf.int32)
        return {"quarters": tf.where(u[:, 0] < self.p, quarters, 0)}

    def stages(self, channels: int) -> list[Stage]:
        def stage(x: Planes, t: dict[str, tf.Tensor]) -> Planes:
            quarters = _per_image(t["quarters"])
            x = [tf.where(quarters >= 2, plane[:, ::-1, ::-1], plane) for plane in x]
            odd = tf.math.floormod(quarters, 2) == 1
            return [tf.where(odd, tf.transpose(plane, [0, 2, 1])[:, ::-1], plane) for plane in x]

        return [stage]


def _per_image(values: tf.Tensor) -> tf.Tensor:
    """[B] → [B, 1, 1]."""
    return values[:, None, None]


def _luminance(planes: Planes) -> tf.Tensor:
    """[B, H, W] of one or three planes."""
    if len(planes) == 1:
        return planes[0]
    return tf.add_n([weight * plane for weight, plane in zip(GRAY, planes, strict=True)])


def _blend(planes: Planes, op: tf.Tensor, factor: tf.Tensor) -> Planes:
    """factor · image + (1 − factor) · reference, clipped to [0, 255].

    op: int [B]; the reference is 0 for brightness (op 0), the image's mean luminance for contrast (1) and
    each pixel's luminance for saturation (2). factor: [B]; 1 changes nothing.
    """
    gray, rest = _luminance(planes), 1.0 - factor
    mean = tf.reduce_mean(gray, axis=[1, 2], keepdims=True)
    reference = _per_image(tf.where(op == 1, rest, 0.0)) * mean
    if len(planes) == 3:
        reference += _per_image(tf.where(op == 2, rest, 0.0)) * gray
    factor = _per_image(factor)
    return [tf.clip_by_value(factor * plane + reference, 0.0, 255.0) for plane in planes]


def _shift_hue(planes: Planes, shift: tf.Tensor) -> Planes:
    """Turns the hue of image b by shift[b] turns, keeping saturation and value."""
    red, green, blue = planes
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    per_chroma = tf.where(chroma > 0, 1.0 / tf.where(chroma > 0, chroma, 1.0), 0.0)
    sixth = tf.where(
        value == red,
        (green - blue) * per_chroma,
        tf.where(value == green, 2.0 + (blue - red) * per_chroma, 4.0 + (red - green) * per_chroma),
    )
    sixth += 6.0 * _per_image(shift)

    def channel(start: float) -> tf.Tensor:
        k = start + sixth
        k -= 6.0 * tf.floor(k / 6.0)
        return value - chroma * tf.clip_by_value(tf.minimum(k, 4.0 - k), 0.0, 1.0)

    return [channel(5.0), channel(3.0), channel(1.0)]


def _blur_taps(sigma: tf.Tensor, radius: int) -> tf.Tensor:
    """Gaussian weights [B, 2 · radius + 1] for σ [B] in pixels; rows sum to 1."""
    offset = tf.range(-radius, radius + 1, dtype=tf.float32)
    taps = tf.exp(-0.5 * tf.square(offset / sigma[:, None]))
    return taps / tf.reduce_sum(taps, axis=1, keepdims=True)


def _convolve_by_products(planes: Planes, taps: tf.Tensor, axis: int) -> Planes:
    """The same as `_pad`, then `_convolve`, by a product with a matrix for each image."""
    count: Any = taps.shape[1]
    size: Any = planes[0].shape[axis]
    read = np.arange(size) + np.arange(count)[:, None] - count // 2  # the pixel that a tap reads: [taps, n]
    tap_matrices = np.eye(size, dtype=np.float32)[np.clip(read, 0, size - 1)]
    matrices = tf.reshape(tf.matmul(taps, tap_matrices.reshape(count, -1)), [-1, size, size])
    if axis == 1:
        return [tf.matmul(matrices, plane) for plane in planes]
    return [tf.matmul(plane, matrices, transpose_b=True) for plane in planes]


def _pad(planes: Planes, radius: int, axis: int) -> Planes:
    """Continues the planes by their edge pixels at both ends of axis 1 or 2."""

    def padded(plane: tf.Tensor) -> tf.Tensor:
        first, last = (plane[:, :1], plane[:, -1:]) if axis == 1 else (plane[:, :, :1], plane[:, :, -1:])
        return tf.concat([tf.repeat(first, radius, axis), plane, tf.repeat(last, radius, axis)], axis)

    return [padded(plane) for plane in planes]


def _convolve(planes: Planes, taps: tf.Tensor, axis: int) -> Planes:
    """Padded planes → weighted sums of neighbours along axis 1 or 2. taps: [B, odd]."""
    count: Any = taps.shape[1]
    size = tf.shape(planes[0])[axis] - count + 1

    def shifted(plane: tf.Tensor, k: int) -> tf.Tensor:
        return plane[:, k : k + size] if axis == 1 else plane[:, :, k : k + size]

    return [tf.add_n([_per_image(taps[:, k]) * shifted(plane, k) for k in range(count)]) for plane in planes]
