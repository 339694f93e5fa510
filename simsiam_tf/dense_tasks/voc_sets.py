"""Pascal VOC's boxes, from TFDS."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from simsiam_tf.data.images.render import render
from simsiam_tf.data.sources.base import short_digest
from simsiam_tf.dense_tasks.annotations import DETECTION, Annotated, AnnotatedSet
from simsiam_tf.runtime.errors import UserError, nearest

YEARS = {"voc/2007": ("2007",), "voc/2012": ("2012",), "voc/2007+2012": ("2007", "2012")}
TEST_YEAR = "2007"  # the test set of 2012 has no annotations


def open_voc(name: str, split: str, task: str, data_dir: str | None = None) -> AnnotatedSet:
    """Opens VOC for detection. Difficult objects are ignored.

    Args:
        name: "voc/2007", "voc/2012", or "voc/2007+2012" for both (VOC07+12 of Table 5).
        split: "train", which is train and validation of the years; or "test", which is that of 2007.
        data_dir: folder of TFDS's sets; its default when None.

    Raises:
        UserError: another set or task, or the set cannot be prepared.
    """
    spec = f"tfds:{name}:{split}"
    if name not in YEARS:
        raise UserError(f"{spec}: is no set with boxes that is known here.{nearest(name, YEARS)}")
    if task != DETECTION:
        raise UserError(
            f"{spec}: has boxes alone. For masks pass masks:JPEGImages,SegmentationClass, two folders in "
            "VOCdevkit/VOC2012."
        )
    from simsiam_tf.data.sources import tfds_sets  # takes seconds to import

    years, part = (YEARS[name], "train+validation") if split == "train" else ((TEST_YEAR,), "test")
    parts = [tfds_sets.open_objects(f"voc/{year}", part, data_dir) for year in years]
    records = [records for records, _, _ in parts]
    fingerprint = short_digest(*(digest.encode() for _, _, digest in parts))
    starts = np.cumsum([0, *map(len, records)])
    return _VocSet(spec, int(starts[-1]), parts[0][1], fingerprint, records, starts)


@dataclasses.dataclass(frozen=True)
class _VocSet(AnnotatedSet):
    """records: examples of each year. starts: index of the first image of each."""

    records: Sequence[Sequence[dict[str, Any]]]
    starts: np.ndarray

    def read(self, index: int) -> Annotated:
        year = int(np.searchsorted(self.starts, index, "right")) - 1
        record = self.records[year][int(index - self.starts[year])]
        image, objects = render(record["image"]), record["objects"]
        height, width, _ = image.shape
        y0, x0, y1, x1 = np.asarray(objects["bbox"], np.float64).reshape(-1, 4).T
        # NOTE: VOC counts pixels from 1 and includes the last, and TFDS divides these numbers by the size: a
        # box that begins at pixel 1 begins at the edge 0.
        boxes = np.stack([x0 * width - 1, y0 * height - 1, x1 * width, y1 * height], axis=-1)
        return Annotated(
            image, boxes.clip(0, [width, height] * 2).astype(np.float32),
            np.asarray(objects["label"], np.int64), np.asarray(objects["is_difficult"], bool),
        )  # fmt: skip
