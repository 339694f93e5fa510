"""What a dry run counts where the weights or a well-known set are not on this machine yet."""

from __future__ import annotations

import sys
from pathlib import Path

from simsiam_tf.config import TransferConfig
from simsiam_tf.config.backbones import is_network
from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.dense_tasks.annotations import DETECTION, Annotated, AnnotatedSet
from simsiam_tf.dense_tasks.subsets import share_of
from simsiam_tf.dense_tasks.voc_sets import YEARS
from simsiam_tf.nets.resnet import resnet
from simsiam_tf.pretrained import hub, weights_address
from simsiam_tf.pretrained.pretrained_backbone import Pretrained

VOC_TRAIN, VOC_TEST, VOC_CLASSES = {"2007": 5_011, "2012": 11_540}, 4_952, 20  # Everingham et al.
COCO_TRAIN, COCO_TEST, COCO_CLASSES = 118_287, 5_000, 80  # of 2017
BACKBONE = "resnet50"  # that of the paper


class UnreadSet(AnnotatedSet):
    """A set of which the numbers of images and classes are known, and no image."""

    def read(self, index: int) -> Annotated:
        raise FileNotFoundError(f"{self.name} is not on this machine.")


def pretrained_stand_in(config: TransferConfig) -> Pretrained | None:
    """A ResNet-50 with random weights where no file has `weights`; None where one has."""
    weights = config.weights
    assert weights is not None
    if is_network(weights) or hub.is_address(weights) or weights_address.is_address(weights):
        return None
    path = Path(weights).expanduser()
    if path.exists():
        return None
    print(f"weights={weights}: not there yet; a ResNet-50 is counted", file=sys.stderr)
    return Pretrained(resnet(BACKBONE), AUGMENTATIONS["imagenet"], path, "", {})


def sets_stand_in(config: TransferConfig) -> tuple[AnnotatedSet, AnnotatedSet] | None:
    """Training and test images of VOC or COCO by published numbers, where they are not here, or None."""
    kind, _, place = str(config.data).partition(":")
    if config.task != DETECTION:
        return None
    if kind == "tfds" and place in YEARS:
        from simsiam_tf.data.sources import tfds_sets  # takes seconds to import

        if all(tfds_sets.is_prepared(f"voc/{year}", config.data_dir) for year in YEARS[place]):
            return None
        sizes = sum(VOC_TRAIN[year] for year in YEARS[place]), VOC_TEST
        classes = VOC_CLASSES
    elif kind == "coco" and Path(place).name == "coco" and not Path(place).expanduser().is_dir():
        sizes, classes = (COCO_TRAIN, COCO_TEST), COCO_CLASSES
    else:
        return None
    print(f"data={config.data}: not there yet; its published numbers are counted", file=sys.stderr)
    names = tuple(f"class {i}" for i in range(classes))
    train, test = (
        UnreadSet(f"{config.data}:{split}", size, names, "")
        for split, size in zip(("train", "test"), sizes, strict=True)
    )
    return share_of(train, config.labels), test
