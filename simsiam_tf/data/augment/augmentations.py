"""AUGMENTATIONS: named augmentations, for data sets and for methods."""

from __future__ import annotations

import dataclasses
from typing import Any

from simsiam_tf.config.backbones import IMAGENET_MEAN, IMAGENET_STD

PerView = float | tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The parameters of an augmentation, in the order in which they apply (Sec. 3; App. D).

    size: height and width of a view in pixels. area: smallest and largest share of the image that a crop
    covers. jitter: strengths of brightness, contrast, saturation and hue. Names that end in _p are those of
    probabilities; blur_p and solarize_p may be tuples with a value for each view, repeated for further views.
    blur_sigma: smallest and largest σ in pixels. mean, std: of each channel of an image in [0, 1].
    """

    size: int = 224
    area: tuple[float, float] = (0.2, 1.0)
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_p: float = 0.8
    gray_p: float = 0.2
    blur_p: PerView = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_p: PerView = 0.0
    flip_p: float = 0.5
    vertical_flip_p: float = 0.0
    rotate_p: float = 0.0  # by a quarter turn, a half, or three quarters
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def for_view(self, view: int) -> Augmentation:
        """The augmentation of one view, counted from 0: every probability a number."""
        values = {name: getattr(self, name) for name in ("blur_p", "solarize_p")}
        per_view = {name: v[view % len(v)] for name, v in values.items() if isinstance(v, tuple)}
        return dataclasses.replace(self, **per_view)

    def for_local_views(self, size: int | None = None, area: float = 0.14) -> Augmentation:
        """The augmentation of small views, for multi-crop (SwAV, arXiv 2006.09882, Sec. 3.3 and App. A).

        size: in pixels; by default 96 for views of 224. area: largest share of the image that a crop covers;
        the smallest is 5/14 of it, as in SwAV (0.05 to 0.14).
        """
        return dataclasses.replace(self, size=size or round(self.size * 96 / 224), area=(area * 5 / 14, area))

    def with_crop_and_flip_alone(self) -> Augmentation:
        """The same without jitter, gray, blur and solarisation, for supervised training (Sec. 3)."""
        return dataclasses.replace(self, jitter_p=0.0, gray_p=0.0, blur_p=0.0, solarize_p=0.0)

    def statistics(self, channels: Any) -> list[tuple[float, ...]]:
        """[mean, std] for so many channels; of another number, the average of its channels."""
        values = (self.mean, self.std)
        return [v if len(v) == channels else (sum(v) / len(v),) * channels for v in values]


AUGMENTATIONS = {
    "imagenet": Augmentation(),
    # The augmentations of the compared methods' papers, which Sec. 6.1 uses.
    # SimCLR (arXiv 2002.05709, App. A) and SwAV (2006.09882, Sec. 4 and App. A):
    "simclr": Augmentation(area=(0.08, 1.0), jitter=(0.8, 0.8, 0.8, 0.2)),
    # BYOL (2006.07733, Table 6): blur and solarisation differ between the two views.
    "byol": Augmentation(
        area=(0.08, 1.0), jitter=(0.4, 0.4, 0.2, 0.1), blur_p=(1.0, 0.1), solarize_p=(0.0, 0.2)
    ),
    "cifar": Augmentation(size=32, blur_p=0.0, mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616)),
    # One channel: of the jitter, brightness and contrast remain.
    "grayscale": Augmentation(size=28, gray_p=0.0, blur_p=0.0, mean=(0.286,), std=(0.353,)),
    # Other numbers of channels, as from satellites and microscopes: no saturation, hue or gray; flips and
    # quarter turns, since such images have no upright direction.
    "multichannel": Augmentation(
        jitter=(0.4, 0.4, 0.0, 0.0), gray_p=0.0, vertical_flip_p=0.5, rotate_p=0.75, mean=(0.5,), std=(0.25,)
    ),
}  # fmt: skip
