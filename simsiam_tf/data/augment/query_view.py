"""The view by which an image is sought among others, made by changes that no training view has."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class QueryView:
    """A turned crop of an image, of another gamma, with noise.

    Rotation, gamma and noise are in no `Augmentation`; the crop keeps the aspect, and is never the whole.

    area: smallest and largest share of the image that the crop covers. degrees: largest rotation, either way.
    gamma: smallest and largest exponent of pixels in [0, 1]. noise: largest std of Gaussian noise, of pixels
    in [0, 1].
    """

    area: tuple[float, float] = (0.6, 0.8)
    degrees: float = 15.0
    gamma: tuple[float, float] = (0.6, 1.6)
    noise: float = 0.05

    def apply(self, images: tf.Tensor, ids: np.ndarray, seed: int) -> tf.Tensor:
        """uint8 [B, S, S, C] → uint8 [B, S, S, C], each a function of its image, its id and the seed.

        ids: int [B], the images' ids.
        """
        generators = [np.random.default_rng([seed, int(i)]) for i in ids]
        u = np.stack([generator.random(6, np.float32) for generator in generators])
        static: Any = images.shape  # of images of one known size
        shape = tuple(static[1:])
        noise = np.stack([generator.standard_normal(shape, np.float32) for generator in generators])
        x = tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(images, tf.float32), transforms=self._transforms(u, shape[0]),
            output_shape=shape[:2], fill_value=0.0, interpolation="BILINEAR", fill_mode="NEAREST",
        )  # fmt: skip
        low, high = (math.log(g) for g in self.gamma)
        gamma = np.exp(low + (high - low) * u[:, 4])
        scale = self.noise * u[:, 5]
        x = (x / 255.0) ** gamma[:, None, None, None] + noise * scale[:, None, None, None]
        return tf.cast(tf.round(tf.clip_by_value(x, 0.0, 1.0) * 255.0), tf.uint8)

    def _transforms(self, u: np.ndarray, size: int) -> np.ndarray:
        """[B, 8]: output pixels (x, y) → input pixels (a₀x + a₁y + a₂, b₀x + b₁y + b₂).

        The crop, a square of side `scale` · size that is rotated by `angle`, lies at a uniform place within
        the image; one whose turned corners reach beyond the image lies in its middle.
        """
        low, high = self.area
        scale = np.sqrt(low + (high - low) * u[:, 0])
        angle = np.radians(self.degrees) * (2 * u[:, 1] - 1)
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        room = np.maximum(0, 1 - cos - np.abs(sin))  # of the centre, in image sides
        middle = (size - 1) / 2
        x, y = (middle + size * room * (place - 0.5) for place in (u[:, 2], u[:, 3]))
        zero = np.zeros_like(cos)
        rows = [cos, -sin, x - middle * (cos - sin), sin, cos, y - middle * (sin + cos), zero, zero]
        return np.stack(rows, axis=1).astype(np.float32)
