"""Statistics of pictures: size, aspect, brightness, contrast and sharpness, and their oddest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from PIL import Image

from simsiam_tf.runtime.errors import UserError

SCALE = 128  # pixels of a side of the square whose area pictures have when their sharpness is taken
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
LONGEST = 16 * SCALE  # pixels of a side at that scale, however narrow a picture is


@dataclasses.dataclass(frozen=True)
class PictureStatistics:
    """Of one picture. width, height: pixels. aspect: width / height. brightness, contrast: mean and standard
    deviation of the luma, in [0, 1]. sharpness: variance of the Laplacian of the luma in [0, 1], of the
    picture brought to the area of `SCALE`² pixels.
    """

    width: int
    height: int
    aspect: float
    brightness: float
    contrast: float
    sharpness: float


@dataclasses.dataclass(frozen=True)
class StatisticsTable:
    """Of N pictures: arrays [N] of the fields of `PictureStatistics`, and the rank of each by oddness.

    oddness: field → int64 [N]; 0 is the picture farthest from the median of that field. Of equally far ones,
    the lowest row comes first. Width, height, aspect and sharpness are compared by their logarithms: half and
    double the median are equally far from it.
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
    """Statistics of a picture, uint8 [H, W, C] or [H, W]; of other than 3 channels, the mean is its luma.

    The Laplacian has 4 neighbours. It is taken at one scale, since a picture of more pixels has softer edges
    in each of them. Enlarged pictures come out as less sharp: they show less.
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
