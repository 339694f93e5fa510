"""Images with boxes and masks cut to squares of one size: at random for training, whole for evaluation."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from simsiam_tf.dense_tasks.annotations import IGNORE, Annotated

LEAST_SEEN = 0.25  # share of a box that a crop keeps, or the box is left out
GRAY = 124  # value of pixels beside the image
DRAWS = 4  # uniforms that a random square takes


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a part of an image lies in a square.

    part: left, top, right and lower edge of the part, in pixels of the image. place: left, top, width and
    height in the square. mirrored: whether the square is flipped afterwards.
    """

    part: tuple[float, float, float, float]
    place: tuple[int, int, int, int]
    mirrored: bool = False


@dataclasses.dataclass(frozen=True)
class Framing:
    """Makes squares of images.

    size: side of the square. scales: smallest and largest length of an image's longer side in training, as
    multiples of the size, drawn uniformly on a logarithmic scale. flip_p: probability of a mirrored square.
    channels: of the square, 1 (gray) or 3.
    """

    size: int
    scales: tuple[float, float] = (0.5, 2.0)
    flip_p: float = 0.5
    channels: int = 3

    def random(self, height: int, width: int, u: np.ndarray) -> Placement:
        """A random part of an image of this height and width. u: `DRAWS` uniforms in [0, 1)."""
        low, high = self.scales
        factor = self.size * low * (high / low) ** float(u[0]) / max(height, width)
        x, y = (self._along(n, factor, float(v)) for n, v in ((width, u[1]), (height, u[2])))
        return Placement((x[0], y[0], x[1], y[1]), (x[2], y[2], x[3], y[3]), bool(u[3] < self.flip_p))

    def whole(self, height: int, width: int) -> Placement:
        """All of an image at the upper left, its longer side as long as the square's."""
        factor = self.size / max(height, width)
        place = 0, 0, max(1, round(width * factor)), max(1, round(height * factor))
        return Placement((0.0, 0.0, float(width), float(height)), place)

    def _along(self, side: int, factor: float, u: float) -> tuple[float, float, int, int]:
        """Along an axis: (first and last edge of the part, first pixel and length in the square)."""
        resized = max(1, round(side * factor))
        if resized <= self.size:
            return 0.0, float(side), int(u * (self.size - resized + 1)), resized
        length = self.size * side / resized
        start = u * (side - length)
        return start, start + length, 0, self.size

    def image(self, image: np.ndarray, placement: Placement) -> np.ndarray:
        """The square of an image: uint8 [H, W, 3] → uint8 [size, size, channels]."""
        picture = Image.fromarray(image)
        if self.channels == 1:
            picture = picture.convert("L")
        square = self._paste(picture, placement, Image.Resampling.BILINEAR, GRAY)
        return square.reshape(self.size, self.size, self.channels)

    def mask(self, mask: np.ndarray, placement: Placement) -> np.ndarray:
        """The square of a mask: uint8 [H, W] → uint8 [size, size], `IGNORE` beside the image."""
        return self._paste(Image.fromarray(mask), placement, Image.Resampling.NEAREST, IGNORE)

    def _paste(
        self, picture: Image.Image, placement: Placement, filter: Image.Resampling, beside: int
    ) -> np.ndarray:
        left, top, width, height = placement.place
        part = np.array(picture.resize((width, height), filter, placement.part))
        square = np.full((self.size, self.size, *part.shape[2:]), beside, np.uint8)
        square[top : top + height, left : left + width] = part
        return square[:, ::-1] if placement.mirrored else square

    def boxes(self, annotated: Annotated, placement: Placement) -> tuple[np.ndarray, np.ndarray]:
        """The boxes that are seen in the square, cut at its edges, and their labels.

        Boxes that are ignored, and those of which less than `LEAST_SEEN` is seen, are left out.
        """
        scale, shift = _scale_and_shift(placement)
        boxes = annotated.boxes * np.tile(scale, 2) + np.tile(shift, 2)
        left, top, width, height = placement.place
        seen = np.clip(boxes, [left, top] * 2, [left + width, top + height] * 2)
        share = _area(seen) / np.maximum(_area(boxes), 1e-9)
        if placement.mirrored:
            seen[:, [0, 2]] = self.size - seen[:, [2, 0]]
        kept = (share >= LEAST_SEEN) & ~annotated.ignored
        return seen[kept].astype(np.float32), annotated.labels[kept]


def in_image(boxes: np.ndarray, placement: Placement, height: int, width: int) -> np.ndarray:
    """Boxes of a square that is not mirrored, [n, 4], in pixels of its image, cut at the image's edges."""
    scale, shift = _scale_and_shift(placement)
    boxes = (boxes - np.tile(shift, 2)) / np.tile(scale, 2)
    return np.clip(boxes, 0, [width, height] * 2)


def _scale_and_shift(placement: Placement) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the square, before it is mirrored, are pixels of the image · scale + shift, along x and y."""
    part, place = np.array(placement.part), np.array(placement.place, float)
    scale = place[2:] / (part[2:] - part[:2])
    return scale, place[:2] - part[:2] * scale


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
