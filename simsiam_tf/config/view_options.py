"""The options of the random changes by which a pre-training makes views of an image."""

from __future__ import annotations

import dataclasses

from simsiam_tf.config.fields import Config, option

_BY_DEFAULT = "by default that of `augmentation`"


@dataclasses.dataclass(frozen=True)
class ViewConfig(Config):
    """Options of views; a base of `PretrainConfig`."""

    augmentation: str = option(
        "auto",
        "random changes that make a view of an image; auto: grayscale or cifar for a set in memory, such as "
        "fashion_mnist and cifar10, of gray or colour images of up to 64 pixels; multichannel for other "
        "numbers of channels than 1 and 3; else imagenet. simclr and byol: the augmentations of those papers "
        "for ImageNet, with any `method`; the SwAV paper uses simclr's",
        "Views",
        choices=("auto", "imagenet", "simclr", "byol", "cifar", "grayscale", "multichannel"),
    )
    image_size: int | None = option(
        None,
        "height and width of the views in pixels; by default those of the images of a set in memory of up to "
        "64 pixels, else that of `augmentation`",
        limits=(4, 4096),
    )
    crop_area: float | None = option(
        None, f"smallest share of the image that a random crop covers; {_BY_DEFAULT}", limits=(0.01, 1.0)
    )
    jitter: float | None = option(
        None,
        f"strength of jitter in brightness, contrast and saturation; a quarter of it in hue; {_BY_DEFAULT}",
        limits=(0, 1),
    )
    blur_p: float | None = option(None, f"probability of Gaussian blur; {_BY_DEFAULT}", limits=(0, 1))
    solarize_p: float | None = option(None, f"probability of solarisation; {_BY_DEFAULT}", limits=(0, 1))
    flip_p: float | None = option(None, f"probability of a horizontal flip; {_BY_DEFAULT}", limits=(0, 1))
    vertical_flip_p: float | None = option(
        None, f"probability of a vertical flip, for pictures from above; {_BY_DEFAULT}", limits=(0, 1)
    )
    rotate_p: float | None = option(
        None, f"probability of a rotation by 90, 180 or 270 degrees; {_BY_DEFAULT}", limits=(0, 1)
    )
