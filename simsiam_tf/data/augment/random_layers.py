"""The paper's augmentation as keras-cv layers with torchvision's semantics.

keras-cv's own layers of these names compute something else (another order, other ranges, zero
padding, no antialiasing), so these subclass its extension point. Each works as an ordinary
keras-cv layer with draws of its own; the pipeline instead calls

    layer.augment_images(images, layer.transformations(u, images))

or runs the layer's `stages` one by one, with u, the layer's `draws` columns of the step's table
of uniforms, so that a view is a function of the step. Images are [B, H, W, C] in [0, 255]; C is
1 or 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from simsiam_tf.data.augment import crops, planar_ops
from simsiam_tf.data.augment.keras_cv_layer import VectorizedBaseImageAugmentationLayer
from simsiam_tf.data.augment.planar_ops import Planes

Stage = Callable[[Planes, dict[str, tf.Tensor]], Planes]


class PaperLayer(VectorizedBaseImageAugmentationLayer):
    """A layer whose transformations are a function of uniforms. Always float32."""

    draws = 0

    def __init__(self, **kwargs) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def transformations(self, u: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """u: [B, draws] in [0, 1) → per-image parameters, each with leading axis B."""
        raise NotImplementedError

    def stages(self, channels: int) -> list[Stage]:
        """The layer as passes over memory: (planes, transformations) → planes."""
        raise NotImplementedError

    def augment_images(self, images: tf.Tensor, transformations: dict, **kwargs) -> tf.Tensor:
        x = planar_ops.from_images(images)
        for stage in self.stages(len(x)):
            x = stage(x, transformations)
        return planar_ops.to_images(x)

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

    draws = crops.DRAWS

    def __init__(self, size: int, area=(0.2, 1.0), aspect=(3 / 4, 4 / 3), **kwargs) -> None:
        super().__init__(**kwargs)
        self.size, self.area, self.aspect = size, tuple(area), tuple(aspect)

    def candidates(self, u: tf.Tensor) -> tf.Tensor:
        """What `boxes` tries, [..., 10, 2]: the part that needs no image."""
        return crops.candidates(u, self.area, self.aspect)

    def boxes(self, u: tf.Tensor, height, width, tried: tf.Tensor | None = None) -> tf.Tensor:
        """u [B, 22], height and width (scalars or [B]) → float [B, 4]: top, left, h, w."""
        image = tf.stack([tf.cast(height, tf.float32), tf.cast(width, tf.float32)], axis=-1)
        tried = self.candidates(u) if tried is None else tried
        return crops.boxes(tried, u[:, -2:], image, self.aspect)

    def transformations(self, u: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
        shape = tf.shape(images)
        return {"boxes": self.boxes(u, shape[1], shape[2])}

    def augment_images(self, images: tf.Tensor, transformations: dict, **kwargs) -> tf.Tensor:
        """Resizes as two products with banded matrices, one pair an image."""
        top, left, h, w = tf.unstack(transformations["boxes"], axis=1)
        shape = tf.shape(images)
        rows = crops.resize_weights(top, h, shape[1], self.size)
        columns = crops.resize_weights(left, w, shape[2], self.size)
        return crops.two_sided(rows, tf.cast(images, tf.float32), columns)

    def crop_one(self, image: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
        """The same of one image [H, W, C] and one box [4]: cheaper where the image is large."""
        top, left, h, w = tf.unstack(tf.cast(box, tf.int32))
        crop = image[top : top + h, left : left + w]
        return crops.resize(crop, self.size, self.size)

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

    def stages(self, channels: int) -> list[Stage]:
        if channels == 1:  # gray images have no saturation and no hue
            return [lambda x, t: self._blends(x, t, 2)]
        # A blend with factor 1 changes nothing: shapes stay static on every accelerator.
        return [
            lambda x, t: self._blends(x, t, 3, late=False),
            lambda x, t: planar_ops.shift_hue(x, t["hue"]),
            lambda x, t: self._blends(x, t, 3, late=True),
        ]

    @staticmethod
    def _blends(x: Planes, t: dict, count: int, late: bool | None = None) -> Planes:
        """The first `count` operators in each image's order; those after the hue's turn, or before."""
        order = tf.argsort(t["rank"][:, :count], axis=1)
        factors = tf.gather(t["factors"], order, batch_dims=1)
        if late is not None:
            after = tf.gather(t["rank"], order, batch_dims=1) > t["rank"][:, 3:]
            factors = tf.where(after == late, factors, 1.0)
        for k in range(count):
            x = planar_ops.blend(x, order[:, k], factors[:, k])
        return x

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

    def stages(self, channels: int) -> list[Stage]:
        return [self._gray] if channels == 3 else []

    @staticmethod
    def _gray(x: Planes, t: dict) -> Planes:
        gray = planar_ops.luminance(x)
        return [tf.where(planar_ops.per_image(t["chosen"]), gray, plane) for plane in x]

    def get_config(self) -> dict:
        return {**super().get_config(), "p": self.p}


class RandomGaussianBlur(PaperLayer):
    """Gaussian blur with σ drawn from `sigma`, in pixels, with probability p.

    Edges are continued by their last pixel, as PIL does.

    Args:
        sigma: the range that σ is drawn from.
        p: probability.
        products: blur along an axis by a product with a matrix for each image, which for small images
            on a CPU takes a third to a fifth of the time of shifted sums.
    """

    draws = 2

    def __init__(self, sigma=(0.1, 2.0), p: float = 0.5, products: bool = False, **kwargs) -> None:
        super().__init__(**kwargs)
        self.sigma, self.p, self.products = tuple(sigma), p, products

    def transformations(self, u: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"chosen": u[:, 0] < self.p, "sigma": crops.between(u[:, 1], *self.sigma)}

    def stages(self, channels: int) -> list[Stage]:
        radius = math.ceil(3.0 * self.sigma[1])
        stages: list[Stage] = []
        for axis in (1, 2):
            if self.products:
                stages.append(lambda x, t, axis=axis: self._mixed(x, self._taps(t, radius), axis))
                continue
            stages.append(lambda x, t, axis=axis: planar_ops.pad(x, radius, axis))
            stages.append(lambda x, t, axis=axis: planar_ops.convolve(x, self._taps(t, radius), axis))
        return stages

    @staticmethod
    def _mixed(x: Planes, taps: tf.Tensor, axis: int) -> Planes:
        return planar_ops.mix(x, planar_ops.blur_matrices(taps, x[0].shape[axis]), axis)

    @staticmethod
    def _taps(t: dict, radius: int) -> tf.Tensor:
        return planar_ops.blur_taps(tf.where(t["chosen"], t["sigma"], 1e-3), radius)

    def get_config(self) -> dict:
        return {**super().get_config(), "sigma": self.sigma, "p": self.p, "products": self.products}


class RandomSolarization(PaperLayer):
    """Inverts all values from `threshold` on, with probability p: BYOL's (arXiv 2006.07733, App. B).

    Args:
        p: probability.
        threshold: the smallest value that is inverted, in [0, 255].
    """

    draws = 1

    def __init__(self, p: float = 0.2, threshold: float = 128.0, **kwargs) -> None:
        super().__init__(**kwargs)
        self.p, self.threshold = p, threshold

    def transformations(self, u: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"chosen": u[:, 0] < self.p}

    def stages(self, channels: int) -> list[Stage]:
        return [lambda x, t: planar_ops.solarize(x, t["chosen"], self.threshold)]

    def get_config(self) -> dict:
        return {**super().get_config(), "p": self.p, "threshold": self.threshold}


class RandomHorizontalFlip(PaperLayer):
    """Mirrors left and right with probability p."""

    draws = 1

    def __init__(self, p: float = 0.5, **kwargs) -> None:
        super().__init__(**kwargs)
        self.p = p

    def transformations(self, u: tf.Tensor, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"chosen": u[:, 0] < self.p}

    def stages(self, channels: int) -> list[Stage]:
        return [self._flip]

    @staticmethod
    def _flip(x: Planes, t: dict) -> Planes:
        return [tf.where(planar_ops.per_image(t["chosen"]), plane[:, :, ::-1], plane) for plane in x]

    def get_config(self) -> dict:
        return {**super().get_config(), "p": self.p}
