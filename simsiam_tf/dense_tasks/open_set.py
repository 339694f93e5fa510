"""The registry of annotated sets; opens one by a specification such as "coco:/my/folder"."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from simsiam_tf.data.sources.base import SourceOptions
from simsiam_tf.dense_tasks.annotated_files import STRICT
from simsiam_tf.dense_tasks.annotations import SEGMENTATION, TASKS, AnnotatedSet
from simsiam_tf.dense_tasks.coco_folder import open_coco
from simsiam_tf.dense_tasks.mask_folders import open_masks
from simsiam_tf.dense_tasks.scenes import open_scenes
from simsiam_tf.dense_tasks.voc_sets import open_voc
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError, nearest

SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class AnnotatedSetType:
    """A row of `ANNOTATED_SETS`.

    form: form of the specification. open: what is asked for → the set.
    """

    form: str
    open: Callable[[Request], AnnotatedSet]


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked for.

    rest: the text of a specification after "NAME:", without a split. split, task, data_dir: as for
    `open_annotated`. scenes, side: number of training scenes, and the pixels of their sides. reading: how
    image files are checked.
    """

    rest: str
    split: str
    task: str
    data_dir: str | None
    scenes: int
    side: int
    reading: SourceOptions

    @property
    def masks(self) -> bool:
        return self.task == SEGMENTATION


def _open_scenes(r: Request) -> AnnotatedSet:
    scenes = r.scenes if r.split == "train" else max(1, r.scenes // 2)
    return open_scenes(r.rest, r.split, scenes, r.side, r.data_dir, r.masks, r.reading)


ANNOTATED_SETS = {
    "coco": AnnotatedSetType("coco:FOLDER[:SPLIT]", lambda r: open_coco(r.rest, r.split, r.masks, r.reading)),
    "masks": AnnotatedSetType(
        "masks:IMAGES,MASKS[:SPLIT]", lambda r: open_masks(r.rest, r.split, r.task, r.reading)
    ),
    "tfds": AnnotatedSetType(
        "tfds:voc/YEAR[:SPLIT]", lambda r: open_voc(r.rest, r.split, r.task, r.data_dir)
    ),
    "scenes": AnnotatedSetType("scenes:SOURCE", _open_scenes),
}


def open_annotated(
    spec: str,
    split: str,
    task: str,
    data_dir: str | None = None,
    scenes: int = 2000,
    side: int = 128,
    reading: SourceOptions = STRICT,
) -> AnnotatedSet:
    """Opens a split of the annotated set that a specification names.

    Args:
        spec: as a row of `ANNOTATED_SETS` shows, such as "coco:FOLDER" or "tfds:voc/2007:test".
        split: "train" or "test", where the specification names none.
        task: "detection" or "segmentation".
        data_dir: folder of TFDS's sets; its default when None.
        scenes, side: of "scenes:SOURCE", the number of training scenes, of which half as many are for the
            test, and the pixels of their sides.
        reading: of this, on_bad_image says whether images that cannot be used are refused or left out, check
            how far image files are checked, report is a file for the names of the former.

    Raises:
        UserError: no such set, split or task; or the set is missing, damaged, or has not what the task needs.
    """
    if task not in TASKS:
        raise UserError(f"task={task}: no such task.{nearest(task, TASKS)}")
    kind, _, rest = spec.partition(":")
    if kind not in ANNOTATED_SETS:
        forms = ", ".join(row.form for row in ANNOTATED_SETS.values())
        fix = f"{nearest(kind, ANNOTATED_SETS)} Pass one of {forms}."
        if spec and Path(spec).expanduser().is_dir():
            fix = f" Pass coco:{spec}, or masks:IMAGES,MASKS."
        raise UserError(printable_text(f"{spec}: no such annotated set.{fix}"))
    before, _, last = rest.rpartition(":")
    if before and last in SPLITS:
        rest, split = before, last
    if split not in SPLITS:
        raise UserError(f"split={split}: no such split.{nearest(split, SPLITS)}")
    return ANNOTATED_SETS[kind].open(Request(rest, split, task, data_dir, scenes, side, reading))
