"""Options of the transfer to detection and segmentation."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

from simsiam_tf.config.evaluation import WeightsConfig
from simsiam_tf.config.fields import BIG, Inapplicable, option
from simsiam_tf.config.images import background_option, check_pixels, pixel_range_option
from simsiam_tf.config.places import absolute_path, absolute_places, is_encoded, is_file
from simsiam_tf.config.run import RunConfig, run_option
from simsiam_tf.runtime.errors import UserError

SIZES = {True: 128, False: 512}  # default side of images: of scenes, and of others
STRIDE = 32  # sides of images are multiples of it
PLACES = ("coco", "masks")  # kinds of data that are paths


def has_files(data: str) -> bool:
    """Whether a specification of annotated images names files, which may be unreadable."""
    kind, _, place = data.partition(":")
    return kind in PLACES or (kind == "scenes" and is_encoded(place))


@dataclasses.dataclass(frozen=True)
class TransferConfig(RunConfig, WeightsConfig):
    """Options of transfer."""

    INAPPLICABLE = (
        *RunConfig.INAPPLICABLE,
        Inapplicable(("milestones",), "schedule", lambda v: v != "steps", "another `schedule` than steps"),
        Inapplicable(("augment_on",), "task", bool, "transfer, whose squares are cut on the host"),
        Inapplicable(("backbone_lr_factor",), "freeze", lambda v: v, "freeze"),
        Inapplicable(("metric",), "task", lambda v: v != "detection", "another `task` than detection"),
        Inapplicable(
            ("scenes",), "data", lambda v: not str(v).startswith("scenes:"), "`data` that is not scenes:…"
        ),
        Inapplicable(
            ("on_bad_image", "check", "background", "pixel_range"),
            "data",
            lambda v: v is not None and not has_files(v),
            "`data` without image files",
        ),
    )

    task: str = option(
        "detection",
        "what is learned: boxes of objects, by RetinaNet (detection), or a class for each pixel, by "
        "DeepLabv3+ (segmentation)",
        "Transfer",
        choices=("detection", "segmentation"),
    )
    init: str = option(
        "weights",
        "start the backbone from `weights`, or, for comparison, from random weights of the same architecture",
        choices=("weights", "random"),
    )
    freeze: bool = option(False, "keep the backbone as it is, its batch normalisation too")
    data: str | None = option(
        None,
        "annotated images: coco:FOLDER; masks:IMAGES,MASKS, two folders with the same names; "
        "tfds:voc/2007, tfds:voc/2012 or tfds:voc/2007+2012; scenes:SOURCE, composed of labelled images, "
        "as in scenes:fashion_mnist or scenes:folder:PATH",
        "Images",
    )
    data_dir: str | None = option(
        None, "folder in which TensorFlow Datasets keeps its data sets", resumable=True
    )
    on_bad_image: str = option(
        "error",
        "an image or a mask that is missing, that cannot be read, or whose size is not that of its "
        "annotations stops the command before the training (error), or is left out (skip)",
        choices=("error", "skip"),
        resumable=True,
    )
    check: str = option(
        "decode",
        "how images that are new or changed since the last command are checked: decode each (decode), read "
        "only their headers (header), or no check (none). Masks in folders are always read",
        choices=("decode", "header", "none"),
    )
    background: str | None = background_option()
    pixel_range: str | None = pixel_range_option()
    scenes: int = option(2000, "number of training scenes; half as many are for the test", limits=(16, BIG))
    labels: float = option(
        1.0, "share of the training images to learn from; a larger share contains a smaller one"
    )
    image_size: int | None = option(
        None,
        f"side of the squares that the network takes, a multiple of {STRIDE}; by default {SIZES[True]} "
        f"pixels for scenes, {SIZES[False]} for others",
        limits=(STRIDE, 2048),
    )
    min_scale: float = option(
        0.8,
        "smallest length of an image's longer side in training, as a multiple of image_size",
        "Views",
        limits=(0.1, 10),
    )
    max_scale: float = option(
        1.25, "largest length of the longer side; above 1 images are cropped", limits=(0.1, 10)
    )
    flip_p: float = option(0.5, "probability of a horizontal flip", limits=(0, 1))

    epochs: float = run_option("epochs", 20.0)
    batch_size: int = run_option("batch_size", 16)
    base_lr: float = run_option(
        "base_lr", 0.16, help="highest learning rate for a batch of 256 (for others times batch_size/256)"
    )
    warmup_epochs: float = run_option("warmup_epochs", 0.5)
    optimizer: str = option(
        "sgd",
        "sgd, as in the paper; or adamw, for example with base_lr=0.032, by which detectors of few images "
        "learn in fewer steps",
        "Optimisation",
        choices=("sgd", "adamw"),
    )
    backbone_lr_factor: float = option(
        1.0,
        "learning rate of the backbone, as a multiple of that of the new layers, such as 0.1 with adamw, by "
        "which weights soon change",
        limits=(0, 1e3),
    )
    schedule: str = option(
        "cosine",
        "the learning rate decays on a cosine (cosine), or is divided by 10 at each of `milestones` (steps)",
        choices=("cosine", "steps"),
    )
    milestones: str = option("0.75,0.9167", "shares of the training at which the learning rate falls")
    metric: str = option(
        "coco",
        "how detections are measured: COCO's AP, AP50 and AP75 (coco; needs pycocotools), or VOC's AP50 by "
        "the area under the curve (voc) or by 11 points (voc2007)",
        choices=("coco", "voc", "voc2007"),
    )
    eval_every: int | None = option(
        None,
        "epochs from one evaluation on the test images to the next; 0: only at the end; by default about "
        "five evaluations in a run",
        resumable=True,
        limits=(0, BIG),
    )

    dry_run: bool = option(
        False, "print what a run would do and cost, and do not train", "Preview", resumable=True
    )

    @property
    def counts_missing_weights(self) -> bool:
        """Whether the command goes on without the weights: a dry run counts a network of known size."""
        return self.dry_run

    def validate(self) -> Self:
        super().validate()
        if not self.data:
            raise UserError("`data`: missing. Pass annotated images, as in data=scenes:fashion_mnist.")
        if not 0 < self.labels <= 1:
            raise UserError(f"labels={self.labels}: must be above 0 and at most 1, as in labels=0.1.")
        if self.size % STRIDE:
            near = max(STRIDE, round(self.size / STRIDE) * STRIDE)
            raise UserError(f"image_size={self.size}: must be a multiple of {STRIDE}, such as {near}.")
        if self.min_scale > self.max_scale:
            raise UserError(f"min_scale={self.min_scale}: is above max_scale={self.max_scale}. Swap them.")
        self.falls()
        check_pixels(self.background, self.pixel_range)
        return self

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.image_size or SIZES[str(self.data).startswith("scenes:")]

    def falls(self) -> list[float]:
        """The milestones as numbers. Raises UserError where these do not ascend from 0 to 1."""
        try:
            shares = [float(text) for text in self.milestones.split(",")]
        except ValueError:
            shares = [0.0]
        if not all(a < b for a, b in zip([0.0, *shares], [*shares, 1.0], strict=True)):
            raise UserError(f"milestones={self.milestones}: must be shares that ascend, as in 0.75,0.9167.")
        return shares

    def preprocessing(self) -> dict[str, Any]:
        """Without image_size, which a backbone that is trained further does not depend on."""
        return {**super().preprocessing(), "image_size": None}

    def absolute(self) -> Self:
        config, (kind, _, place) = super().absolute(), str(self.data).partition(":")
        if kind == "scenes" and is_file(place):
            return dataclasses.replace(config, data=f"{kind}:{absolute_places(place)}")
        if kind not in PLACES:
            return config
        paths = ",".join(map(absolute_path, place.split(",") if kind == "masks" else [place]))
        return dataclasses.replace(config, data=f"{kind}:{paths}")
