"""Sets of images with boxes or masks, each a function of its id."""

from __future__ import annotations

import dataclasses

import numpy as np

IGNORE = 255  # value of a mask where there is no truth, such as the outlines of VOC
DETECTION, SEGMENTATION = "detection", "segmentation"
TASKS = (DETECTION, SEGMENTATION)


@dataclasses.dataclass(frozen=True)
class Annotated:
    """An image and what is in it.

    image: uint8 [H, W, 3].
    boxes: float32 [n, 4], the left, top, right and lower edge in pixels, with the left and top edge of the
        image at 0; [0, 4] in a set for segmentation.
    labels: int64 [n], classes of the boxes, from 0.
    ignored: bool [n], boxes that count neither as found nor as missed (COCO's crowds, VOC's difficult ones).
        Training leaves them out.
    mask: uint8 [H, W], the class of each pixel, 0 for the background, `IGNORE` for none; None in a set for
        detection.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    mask: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class AnnotatedSet:
    """A set of annotated images with ids 0 … size − 1.

    name: its specification. class_names: of boxes by label; of masks by value, the background first.
    fingerprint: a digest of all that its images and annotations depend on, as far as that is known without
    reading every image. pixels: how image files become pixels, as arguments of `PixelRule.from_options`.
    """

    name: str
    size: int
    class_names: tuple[str, ...]
    fingerprint: str
    pixels: dict[str, str] = dataclasses.field(default_factory=dict, kw_only=True)

    def read(self, index: int) -> Annotated:
        """The image `index` with its annotations. Raises OSError or ValueError where it cannot be read."""
        raise NotImplementedError

    def has_truth(self, index: int) -> bool:
        """Whether the image has a box that counts or a pixel of an object. Raises as `read` does."""
        annotated = self.read(index)
        if annotated.mask is None:
            return not annotated.ignored.all()
        return bool(((annotated.mask != 0) & (annotated.mask != IGNORE)).any())

    def contents(self) -> str:
        """A digest that changes where images or annotations do."""
        return self.fingerprint

    def bytes_kept(self) -> int:
        """Bytes of images that stay in memory once they were read."""
        return 0

    @property
    def channels(self) -> int:
        """Of an image."""
        return 3


def no_boxes() -> dict[str, np.ndarray]:
    """The fields of `Annotated` for an image without boxes."""
    return {
        "boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64), "ignored": np.zeros(0, bool)
    }  # fmt: skip
