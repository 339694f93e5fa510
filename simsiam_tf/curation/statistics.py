"""Statistics of pictures (size, aspect, brightness, contrast, sharpness), and their ranks by oddness."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from PIL import Image

from simsiam_tf.runtime.errors import UserError

SCALE = 128  # pictures are scaled to the area of a square of this side, in pixels, to measure sharpness
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
LONGEST = 16 * SCALE  # longest side of a scaled picture in pixels, however narrow it is


@dataclasses.dataclass(frozen=True)
class PictureStatistics:
    """Statistics of one picture.

    width, height: in pixels. aspect: width / height. brightness, contrast: mean and standard deviation of the
    luma, in [0, 1]. sharpness: variance of the Laplacian of the luma, of the picture scaled to the area of
    `SCALE`² pixels.
    """

    width: int
    height: int
    aspect: float
    brightness: float
    contrast: float
    sharpness: float


@dataclasses.dataclass(frozen=True)
class StatisticsTable:
    """Statistics of N pictures: arrays [N] of the fields of `PictureStatistics`, and ranks by oddness.

    oddness: field → int64 [N], ranks by the distance from the median of that field; 0 is the farthest, and of
    equally far ones the lowest row comes first. Width, height, aspect and sharpness are compared by their
    logarithms: half and double the median are equally far from it.
    """

    width: np.ndarray
    height: np.ndarray
    aspect: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    sharpness: np.ndarray
    oddness: dict[str, np.ndarray]

    @property
    def area(self) -> np.ndarray:
        """Pixels of each picture, int64 [N]."""
        return self.width * self.height


FIELDS = tuple(field.name for field in dataclasses.fields(PictureStatistics))
# Fields that are compared by their logarithm, and the least value of which it is taken.
RATIOS = {"width": 1.0, "height": 1.0, "aspect": 1e-6, "sharpness": 1e-6}


def picture_statistics(image: np.ndarray) -> PictureStatistics:
    """Statistics of a picture, uint8 [H, W, C] or [H, W].

    The luma of a picture with other than 3 channels is their mean. The Laplacian (of 4 neighbours) is taken
    at one scale for all pictures, since edges are softer from pixel to pixel in a picture of more pixels. A
    picture that was enlarged is less sharp than its original.

    Raises:
        UserError: an array of another type or shape, or without pixels.
    """
    image = np.asarray(image)
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or image.dtype != np.uint8 or not image.size:
        raise UserError(f"`image`: is {image.dtype} of shape {image.shape}. Pass uint8 [H, W, C].")
    height, width, channels = image.shape
    weights = np.array(LUMA if channels == 3 else [1 / channels] * channels, np.float32) / 255
    luma = image.astype(np.float32) @ weights
    ratio = SCALE / np.sqrt(width * height)
    size = [int(np.clip(round(side * ratio), 3, LONGEST)) for side in (width, height)]
    scaled = np.asarray(Image.fromarray(luma).resize((size[0], size[1]), Image.Resampling.BILINEAR))
    inner = scaled[1:-1, 1:-1]
    around = scaled[:-2, 1:-1] + scaled[2:, 1:-1] + scaled[1:-1, :-2] + scaled[1:-1, 2:]
    return PictureStatistics(
        width, height, width / height, float(luma.mean(dtype=np.float64)),
        float(luma.std(dtype=np.float64)), float((around - 4 * inner).var(dtype=np.float64)),
    )  # fmt: skip


def statistics_table(pictures: Iterable[np.ndarray | PictureStatistics]) -> StatisticsTable:
    """Statistics of many pictures, of which one at a time is in memory.

    pictures: images as for `picture_statistics`, or their statistics.

    Raises:
        UserError: there are no pictures, or as `picture_statistics`.
    """
    each = [p if isinstance(p, PictureStatistics) else picture_statistics(p) for p in pictures]
    if not each:
        raise UserError("`pictures`: are none. Pass at least one.")
    columns = {name: np.array([getattr(one, name) for one in each]) for name in FIELDS}
    return StatisticsTable(**columns, oddness={name: _oddness(name, columns[name]) for name in FIELDS})


def _oddness(name: str, values: np.ndarray) -> np.ndarray:
    if name in RATIOS:
        values = np.log(np.maximum(values, RATIOS[name]))
    order = np.argsort(-np.abs(values - np.median(values)), kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank
