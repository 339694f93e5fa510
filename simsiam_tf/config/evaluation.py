"""What the commands that use a pre-trained backbone have in common."""

from __future__ import annotations

import dataclasses

from simsiam_tf.config.fields import BIG, Config, option
from simsiam_tf.runtime.errors import UserError

RANGES = (("image_size", 4, 4096), ("max_megapixels", 0.001, 1e4), ("batch_size", 1, 2**20))


@dataclasses.dataclass(frozen=True)
class WeightsConfig(Config):
    """A backbone, and how its images are made ready."""

    weights: str | None = option(
        None, "pre-trained backbone: a finished work folder or a .keras file", "Backbone"
    )
    augmentation: str = option(
        "auto",
        "how images are made ready, for a file without a card; auto: as in the pre-training",
        choices=("auto", "imagenet", "cifar", "grayscale"),
    )
    image_size: int | None = option(None, "side of the images in pixels; as in the pre-training by default")

    def validate(self) -> WeightsConfig:
        """Returns itself, or raises UserError for the first value that cannot be."""
        if not self.weights:
            raise UserError("`weights`: missing. Pass a finished work folder, as in weights=runs/quickstart.")
        return super().validate()


@dataclasses.dataclass(frozen=True)
class ImagesConfig(WeightsConfig):
    """A backbone and images that go through it."""

    RANGES = (*RANGES,)
    NO_EFFECT = (
        (
            ("on_bad_image", "max_megapixels"),
            "data",
            lambda v: not (v or "").startswith("folder:"),
            "data that is no folder",
        ),
    )

    data: str | None = option(
        None,
        "images: fashion_mnist, digits, tfds:NAME[:SPLIT] or folder:PATH; by default what the backbone "
        "was pre-trained on",
        "Images",
    )
    data_dir: str | None = option(None, "where TFDS keeps its data sets", free=True)
    on_bad_image: str = option(
        "error", "what to do with unreadable images of a folder", choices=("error", "skip")
    )
    max_megapixels: float = option(100.0, "larger images of a folder count as unreadable")
    batch_size: int = option(256, "images at a time", free=True)


@dataclasses.dataclass(frozen=True)
class LabelledConfig(ImagesConfig):
    """A backbone, images to learn from and images to be scored on."""

    RANGES = (*RANGES, ("seed", 0, BIG))

    test: str = option(
        "auto",
        "labelled images to be scored on; auto: the test split, or every tenth image where there is "
        "none, which then is not learned from",
        "Images",
    )
    seed: int = option(0, "of whatever is chosen or drawn")


@dataclasses.dataclass(frozen=True)
class KeptFeaturesConfig(LabelledConfig):
    """What scores the features of both, which are made once and kept."""

    features_dir: str | None = option(
        None, "where features are kept; WORKDIR/features, or FILE.features, by default"
    )
    raw_pixels: bool = option(True, "score raw pixels beside them, where images are small")
