"""Options shared by the commands that use a pre-trained backbone."""

from __future__ import annotations

import dataclasses

from simsiam_tf.config.fields import BIG, Config, option
from simsiam_tf.config.images import SourceConfig
from simsiam_tf.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class WeightsConfig(Config):
    """Options for a backbone and the preprocessing of its images."""

    weights: str | None = option(
        None, "pre-trained backbone: a finished or converted work folder, a .keras file, or on the Hugging "
        "Face Hub hf://USER/NAME[@REVISION], whose results go to runs/USER-NAME by default", "Backbone",
    )  # fmt: skip
    augmentation: str = option(
        "auto",
        "normalisation and default size of the images; auto: as in the pre-training. Needed only for a "
        ".keras file without a model card",
        choices=("auto", "imagenet", "cifar", "grayscale", "multichannel"),
    )
    image_size: int | None = option(
        None, "height and width of the images in pixels; by default as in the pre-training", limits=(4, 4096)
    )

    def validate(self) -> WeightsConfig:
        if not self.weights:
            raise UserError("`weights`: missing. Pass a finished work folder, as in weights=runs/quickstart.")
        return super().validate()


@dataclasses.dataclass(frozen=True)
class ImagesConfig(SourceConfig, WeightsConfig):
    """Options for a backbone and the images to compute features of."""

    batch_size: int = option(
        256, "images whose features are computed at a time", resumable=True, limits=(1, 2**20)
    )


@dataclasses.dataclass(frozen=True)
class LabelledConfig(ImagesConfig):
    """Options for a backbone, labelled training images and labelled test images."""

    test: str = option(
        "auto",
        "labelled images for the test; auto: the test or validation split of `data`, or, where it has none, "
        "every tenth image, which is then left out of the training",
        "Images",
    )
    seed: int = option(
        0, "seed of the choice of images and of the training in probe; not used by knn_eval", limits=(0, BIG)
    )


@dataclasses.dataclass(frozen=True)
class KeptFeaturesConfig(LabelledConfig):
    """Options of evaluations on features that are computed once and stored in files."""

    features_dir: str | None = option(
        None,
        "folder for the features; by default WORKDIR/features, FILE.features beside a .keras file, or "
        "runs/USER-NAME/features",
    )
    raw_pixels: bool = option(True, "also evaluate raw pixels, for comparison, where images are small")
