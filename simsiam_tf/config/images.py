"""Options for sets of images: where the images lie, which are left out, and how they become pixels."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from simsiam_tf.config.fields import Config, Inapplicable, option
from simsiam_tf.config.places import is_encoded
from simsiam_tf.runtime.errors import UserError

BACKGROUNDS = ("white", "black")
_READING = ("on_bad_image", "max_megapixels", "check", "channels", "background", "pixel_range")


def bad_image_option(default: str, more: str = "", resumable: bool = False) -> Any:
    """The option `on_bad_image` of a command.

    One rule decides the default: "error" where a result is one number or network of all images, which others
    left out would change; "skip" where each image has an answer of its own.

    more: help of this command alone.
    """
    return option(
        default,
        "what happens where an image cannot be read: the command stops (error), or goes on without it, and "
        "names it (skip). Training and accuracies stop by default, since they would be others without it; "
        f"embed, curate and report go on, since the answers for other images stay.{more}",
        choices=("error", "skip"),
        resumable=resumable,
    )


def background_option() -> Any:
    """The option `background` of a command."""
    return option(None, "colour behind transparent pixels: white, black or #rrggbb; white by default")


def pixel_range_option() -> Any:
    """The option `pixel_range` of a command."""
    return option(
        None,
        "the two values that become 0 and 255, for images of more than 8 bits: LOW,HIGH; type: the smallest "
        "and the largest value of their number type; auto, the default: the 0.1 and 99.9 percentiles of a "
        "sample of the images",
    )


def check_pixels(background: str | None, pixel_range: str | None) -> None:
    """Raises UserError for a background that is no colour, or a range that is none."""
    if background not in (None, *BACKGROUNDS) and not re.fullmatch(r"#[\da-fA-F]{6}", background):
        raise UserError(
            f"background={background}: must be white, black or #rrggbb, as in background=#2040c0."
        )
    if pixel_range not in (None, "auto", "type"):
        check_range(pixel_range)


@dataclasses.dataclass(frozen=True)
class SourceConfig(Config):
    """Options for images and how they are read."""

    INAPPLICABLE = (
        Inapplicable(
            _READING, "data", lambda v: v is not None and not is_encoded(v),
            "data that is not a folder, a list, an archive, a table or hf:NAME",
        ),
    )  # fmt: skip

    data: str | None = option(
        None,
        "images: fashion_mnist, digits, tfds:NAME[:SPLIT], folder:PATH, list:FILE, tar:PATTERN, zip:PATTERN, "
        "parquet:PATTERN, tfrecord:PATTERN or hf:NAME[:SPLIT]; by default the images of the pre-training",
        "Images",
    )
    data_dir: str | None = option(
        None, "folder in which TensorFlow Datasets keeps its data sets", resumable=True
    )
    on_bad_image: str = bad_image_option("error", resumable=True)
    max_megapixels: float = option(
        100.0, "images of more megapixels count as unreadable", limits=(0.001, 1e4)
    )
    check: str = option(
        "decode",
        "how images that are new or changed since the last command are checked: decode each (decode), read "
        "only their headers (header), or no check (none)",
        choices=("decode", "header", "none"),
        resumable=True,
    )
    channels: int | None = option(
        None,
        "channels of the decoded images: 1 converts all to gray, 3 to colour; other numbers are for .npy and "
        "TIFF files with as many channels. By default the number that all images have, else 3",
        limits=(1, 256),
    )
    background: str | None = background_option()
    pixel_range: str | None = pixel_range_option()

    def validate(self) -> SourceConfig:
        super().validate()
        check_pixels(self.background, self.pixel_range)
        return self

    def source_options(self) -> dict[str, Any]:
        """Arguments of `data.open_source`, without options that are None."""
        names = ("data_dir", *_READING)
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def check_range(text: str) -> tuple[float, float]:
    """(low, high) of "LOW,HIGH". Raises UserError where these are not two ascending numbers."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = 0.0
    if not low < high < float("inf"):
        raise UserError(f"pixel_range={text}: must be auto, type, or two numbers, as in pixel_range=0,4095.")
    return low, high
