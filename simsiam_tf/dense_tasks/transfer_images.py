"""The training and test images of a transfer."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path

from simsiam_tf.config import TransferConfig
from simsiam_tf.data.sources.base import SourceOptions
from simsiam_tf.dense_tasks.annotations import SEGMENTATION, AnnotatedSet
from simsiam_tf.dense_tasks.open_set import SPLITS, open_annotated
from simsiam_tf.dense_tasks.subsets import share_of
from simsiam_tf.pretrained.pretrained_backbone import Pretrained
from simsiam_tf.runtime.display_text import one_line
from simsiam_tf.runtime.errors import UserError

log = logging.getLogger("simsiam_tf.run")


def open_images(
    config: TransferConfig, pretrained: Pretrained, report: Path | None = None
) -> tuple[AnnotatedSet, AnnotatedSet]:
    """The training images, of which there are config.labels, and the test images.

    report: file for the names of training images that cannot be used; test images get one beside it, whose
    name ends with "-test".

    Raises:
        UserError: as for `open_annotated`; or the two have other classes, or nothing to learn from.
    """
    pixels = _pixel_options(config, pretrained)
    train = _open_split(config, "train", report, pixels)
    # Pixels of more than 8 bits become those of 8 by the same values in both.
    test = _open_split(config, "test", report, {**pixels, **train.pixels})
    if train.class_names != test.class_names:
        other = sorted({*train.class_names} ^ {*test.class_names}) or ["their order"]
        raise UserError(f"data={config.data}: its test images have other classes; {other[0]} differs.")
    if pretrained.channels == 1 and not train.name.startswith("scenes:"):
        log.warning("%s takes gray images: colours are turned gray", pretrained.place)
    train = share_of(train, config.labels)
    for images in (train, test):
        check_truth(images, config.task)
    return train, test


def _pixel_options(config: TransferConfig, pretrained: Pretrained) -> dict[str, str]:
    """How image files become pixels: the options given, else as in the pre-training."""
    names = ("background", "pixel_range")
    given = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    return {**pretrained.card.get("pixels", {}), **given}


def _open_split(
    config: TransferConfig, split: str, report: Path | None, pixels: Mapping[str, str]
) -> AnnotatedSet:
    assert config.data is not None
    place, _, last = config.data.rpartition(":")
    if last in SPLITS:
        raise UserError(f"data={config.data}: names a split, and both are used. Pass data={place}.")
    if report and split == "test":
        report = report.with_stem(f"{report.stem}-test")
    reading = SourceOptions(on_bad_image=config.on_bad_image, check=config.check, report=report)
    reading = dataclasses.replace(reading, **pixels)
    return open_annotated(
        config.data, split, config.task, config.data_dir, config.scenes, config.size, reading
    )


def check_truth(images: AnnotatedSet, task: str) -> None:
    """Raises UserError where no image has a box that counts, or a pixel of a class.

    Reads annotations, or images where these are in one file, up to the first that has.
    """
    try:
        if any(map(images.has_truth, range(images.size))):
            return
    except (OSError, ValueError) as error:
        raise UserError(f"{images.name}: an image cannot be read: {one_line(error)}") from error
    lack = "pixels of a class in its masks" if task == SEGMENTATION else "boxes, or only ignored ones"
    raise UserError(f"{images.name}: has no {lack}: nothing to learn from, or to measure by.")
