"""The augmentation after the crop, as keras-cv layers with torchvision's semantics.

keras-cv's own layers of these names compute something else (another order, other ranges, zero padding, no
antialiasing). `keras_cv_layer` says how a layer is used.
"""

from __future__ import annotations

import math

import tensorflow as tf

from simsiam_tf.data.augment import planar_ops
from simsiam_tf.data.augment.crops import between
from simsiam_tf.data.augment.keras_cv_layer import PaperLayer, Stage
from simsiam_tf.data.augment.planar_ops import Planes, per_image

OPERATORS = ("brightness", "contrast", "saturation", "hue")


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
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        self.p = p

    def transformations(self, u: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
        chosen = u[:, 0] < self.p
        strengths = tf.constant([getattr(self, name) for name in OPERATORS])
        offset = tf.where(chosen[:, None], (2.0 * u[:, 1:5] - 1.0) * strengths, 0.0)
        # rank[b, op] is the place of op in image b's order: a uniform permutation.
        rank = tf.argsort(tf.argsort(u[:, 5:9], axis=1), axis=1)
        return {"factors": 1.0 + offset[:, :3], "hue": offset[:, 3], "rank": rank}

    def stages(self, channels: int) -> list[Stage]:
        if channels == 1:  # gray images have no saturation and no hue
            return [lambda x, t: _blends(x, t, 2)]
        # A blend with factor 1 changes nothing: shapes stay static on every accelerator.
        return [
            lambda x, t: _blends(x, t, 3, after_hue=False),
            lambda x, t: planar_ops.shift_hue(x, t["hue"]),
            lambda x, t: _blends(x, t, 3, after_hue=True),
        ]


def _blends(x: Planes, t: dict[str, tf.Tensor], count: int, after_hue: bool | None = None) -> Planes:
    """The first `count` operators in each image's order: those before the hue, those after it, or all."""
    order = tf.argsort(t["rank"][:, :count], axis=1)
    factors = tf.gather(t["factors"], order, batch_dims=1)
    if after_hue is not None:
        after = tf.gather(t["rank"], order, batch_dims=1) > t["rank"][:, 3:]
        factors = tf.where(after == after_hue, factors, 1.0)
    for k in range(count):
        x = planar_ops.blend(x, order[:, k], factors[:, k])
    return x


class RandomGaussianBlur(PaperLayer):
    """Gaussian blur with σ drawn from `sigma`, in pixels, with probability p.

    Outside the image, its edge pixels are repeated, as in PIL.

    Args:
        sigma: the range that σ is drawn from.
        p: probability.
        products: blur along an axis by a product with a matrix for each image, which for small images
            on a CPU takes a third to a fifth of the time of shifted sums.
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
            return planar_ops.blur_taps(tf.where(t["chosen"], t["sigma"], 1e-3), radius)

        stages: list[Stage] = []
        for axis in (1, 2):
            if self.products:
                stages.append(lambda x, t, axis=axis: planar_ops.convolve_by_products(x, taps(t), axis))
            else:
                stages.append(lambda x, t, axis=axis: planar_ops.pad(x, radius, axis))
                stages.append(lambda x, t, axis=axis: planar_ops.convolve(x, taps(t), axis))
        return stages


class _ChosenLayer(PaperLayer):
    """A layer that changes an image in one way, or leaves it, with probability p."""

    draws = 1
    p: float

    def transformations(self, u: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"chosen": u[:, 0] < self.p}

    def changed(self, x: Planes) -> Planes:
        """The planes of the images, as if all were chosen."""
        raise NotImplementedError

    def stages(self, channels: int) -> list[Stage]:
        def stage(x: Planes, t: dict[str, tf.Tensor]) -> Planes:
            chosen, pairs = per_image(t["chosen"]), zip(self.changed(x), x, strict=True)
            return [tf.where(chosen, new, old) for new, old in pairs]

        return [stage]


class RandomGrayscale(_ChosenLayer):
    """Replaces all channels by the luminance with probability p."""

    def __init__(self, p: float = 0.2, **kwargs) -> None:
        super().__init__(**kwargs)
        self.p = p

    def stages(self, channels: int) -> list[Stage]:
        return super().stages(channels) if channels == 3 else []

    def changed(self, x: Planes) -> Planes:
        return [planar_ops.luminance(x)] * 3


class RandomSolarization(_ChosenLayer):
    """Inverts all values from `threshold` on, with probability p, as in BYOL (arXiv 2006.07733, App. B).

    Args:
        p: probability.
        threshold: the smallest value that is inverted, in [0, 255].
    """

    def __init__(self, p: float = 0.2, threshold: float = 128.0, **kwargs) -> None:
        super().__init__(**kwargs)
        self.p, self.threshold = p, threshold

    def changed(self, x: Planes) -> Planes:
        return [tf.where(plane >= self.threshold, 255.0 - plane, plane) for plane in x]


class RandomHorizontalFlip(_ChosenLayer):
    """Mirrors left and right with probability p."""

    def __init__(self, p: float = 0.5, **kwargs) -> None:
        super().__init__(**kwargs)
        self.p = p

    def changed(self, x: Planes) -> Planes:
        return [plane[:, :, ::-1] for plane in x]
