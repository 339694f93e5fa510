"""Options shared by the commands that use a pre-trained backbone."""

from __future__ import annotations

import dataclasses
from typing import Any

from simsiam_tf.config.backbones import PIXELS, is_network, parse_backbone
from simsiam_tf.config.fields import BIG, Config, option
from simsiam_tf.config.images import SourceConfig
from simsiam_tf.runtime.errors import UserError

PREPROCESSINGS = ("auto", "imagenet", "cifar", "grayscale", "multichannel")  # values of `augmentation`
FEATURES_DIR = (
    "folder for the features; by default WORKDIR/features, FILE.features beside a .keras file, or, for "
    "URLs and published networks, runs/NAME/features"
)
PIXELS_OPTION = (
    "auto",
    "pixel values that the network of a .keras file or function takes: torch (mean 0 and variance 1 on "
    "ImageNet), "
    "tf (−1 to 1), caffe (blue, green, red less their means), unit (0 to 1), byte (0 to 255); auto: from the "
    "file's model card or, for a network of keras.applications or keras-hub, from its library",
)
TRUST_OPTION = (False, "open .keras files that name code of other packages; that code then runs")


@dataclasses.dataclass(frozen=True)
class WeightsConfig(Config):
    """Options for a backbone and the preprocessing of its images."""

    weights: str | None = option(
        None,
        "pre-trained backbone: a finished or converted work folder; a .keras file; hf://USER/NAME[@REVISION] "
        "on the Hugging Face Hub; the URL of a card with its SHA-256, https://…/NAME.json#sha256=HEX, beside "
        "which NAME.keras lies; or a published network, hub:PRESET of keras-hub or keras:NAME+imagenet of "
        "keras.applications. By default, results for URLs and published networks go to a folder in runs/",
        "Backbone",
    )
    augmentation: str = option(
        "auto",
        "normalisation and default size of the images; auto: as in the pre-training. Needed only for a "
        ".keras file without a model card",
        choices=PREPROCESSINGS,
    )
    image_size: int | None = option(
        None,
        "height and width of the images in pixels; by default the size that the model card records: "
        "read_size of the pre-training or, in linear_eval and finetune, the size of its views",
        limits=(4, 4096),
    )
    pixels: str = option(*PIXELS_OPTION, choices=("auto", *PIXELS))
    trust_code: bool = option(*TRUST_OPTION)

    def validate(self) -> WeightsConfig:
        if not self.weights:
            raise UserError("`weights`: missing. Pass a finished work folder, as in weights=runs/quickstart.")
        if is_network(self.weights):
            parse_backbone(self.weights, "weights")
        return super().validate()

    def preprocessing(self) -> dict[str, Any]:
        """Arguments of `pretrained_backbone.open_pretrained`, besides the weights."""
        names = ("augmentation", "image_size", "pixels", "trust_code")
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True)
class ImagesConfig(SourceConfig, WeightsConfig):
    """Options for a backbone and the images to compute features of."""

    batch_size: int = option(
        256, "images whose features are computed at a time", resumable=True, limits=(1, 2**20)
    )


@dataclasses.dataclass(frozen=True)
class FeaturesConfig(ImagesConfig):
    """Options of commands that compute features to be kept."""

    fast: bool = option(
        False,
        "compute the features in less time; they differ by about 1 %: large JPEG files are decoded at "
        "a half, a quarter or an eighth of their size, batch normalisation is part of the convolutions, and "
        "the network computes in bfloat16 where the hardware supports it",
        resumable=True,
    )
    features_dir: str | None = option(None, FEATURES_DIR)


@dataclasses.dataclass(frozen=True)
class LabelledConfig(ImagesConfig):
    """Options for a backbone, labelled training images and labelled test images."""

    test: str = option(
        "auto",
        "labelled images for the test; auto: the test or validation split of `data`. Where there is neither, "
        "or it overlaps with `data`, every tenth training image is held out instead",
        "Images",
    )
    seed: int = option(0, "seed of the choice of images, and of the training in probe", limits=(0, BIG))


@dataclasses.dataclass(frozen=True)
class KeptFeaturesConfig(LabelledConfig):
    """Options of evaluations on features that are computed once and stored in files."""

    features_dir: str | None = option(None, FEATURES_DIR)
    raw_pixels: bool = option(True, "also evaluate raw pixels, for comparison, where images are small")
