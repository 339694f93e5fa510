"""Folders with annotations in COCO's format: COCO's own layout, and those of tools for labelling."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from simsiam_tf.data.sources.base import short_digest
from simsiam_tf.data.sources.members import Members
from simsiam_tf.dense_tasks.annotated_files import existing_folder, files_digest, picture_files, read_picture
from simsiam_tf.dense_tasks.annotations import IGNORE, Annotated, AnnotatedSet, no_boxes
from simsiam_tf.dense_tasks.coco_json import CocoFile, read_coco_file
from simsiam_tf.dense_tasks.coco_masks import semantic_mask
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

NAMES = {"train": ("train2017", "train"), "test": ("val2017", "val", "valid", "test")}  # of splits
FILES = (
    "annotations/instances_{}.json", "{}/_annotations.coco.json", "{}.json", "annotations/{}.json",
)  # fmt: skip


def open_coco(path: str, split: str, masks: bool = False) -> AnnotatedSet:
    """Opens a split of a folder with annotations in COCO's format.

    Labels are the categories in the order of their ids. Boxes are clipped to the image; crowds are ignored.
    A mask has 1 + label where an object is; smaller objects cover larger ones; crowds are `IGNORE`, and so is
    the box of an object without a segmentation. Images without annotations belong to the set.

    Args:
        path: the folder. For the split NAME it has annotations/instances_NAME.json, NAME.json or
            NAME/_annotations.coco.json, and its images in NAME/, images/NAME/, images/ or beside the file;
            a file of another name that is alone in the folder is the split "train".
        split: "train" or "test", for which NAME is the first that is there of `NAMES`.
        masks: for segmentation.

    Raises:
        UserError: annotations or images are missing, or the annotations are damaged (`read_coco_file`).
    """
    spec = printable_text(f"coco:{path}:{split}")
    folder = existing_folder(path, spec)
    file, places = _annotation_file(folder, split, spec)
    content = read_coco_file(file, masks)
    members, rows = _find_pictures(places, content.file_names, spec)
    fingerprint = short_digest(content.digest.encode(), files_digest(members, rows).encode(), bytes([masks]))
    names = ("background", *content.class_names) if masks else content.class_names
    return _CocoSet(spec, len(rows), names, fingerprint, file.name, content, members, rows, masks)


@dataclasses.dataclass(frozen=True)
class _CocoSet(AnnotatedSet):
    """rows: of the images, among the files of `members`."""

    file: str
    content: CocoFile
    members: Members
    rows: np.ndarray
    masks: bool

    def read(self, index: int) -> Annotated:
        content = self.content
        width, height = content.sizes[index].tolist()
        image = read_picture(self.members, int(self.rows[index]), width, height, self.file)
        objects = slice(*content.starts[index : index + 2].tolist())
        labels, ignored = content.labels[objects], content.ignored[objects]
        if not self.masks:
            return Annotated(image, content.boxes[objects], labels, ignored)
        values = np.where(ignored, IGNORE, labels + 1)
        mask = semantic_mask(content.segmentations[objects], values, height, width)
        return Annotated(image, **no_boxes(), mask=mask)


def _annotation_file(folder: Path, split: str, spec: str) -> tuple[Path, list[Path]]:
    """The file of annotations of a split, and the folders in which its images may be, the likely first."""
    for name in NAMES[split]:
        for form in FILES:
            file = folder / form.format(name)
            if file.is_file():
                return file, [
                    folder / name, folder / "images" / name, file.parent, file.parent / "images",
                    folder / "images", folder,
                ]  # fmt: skip
    taken = {form.format(name) for names in NAMES.values() for name in names for form in FILES}
    alone = [file for file in folder.glob("*.json") if file.name not in taken]
    if split == "train" and len(alone) == 1:
        return alone[0], [folder, folder / "images"]
    looked_for = ", ".join(form.format("NAME") for form in FILES)
    fix = " or one file of another name" if split == "train" else ""
    raise UserError(
        f"{spec}: no annotations of this split. Looked for {looked_for}, where NAME is "
        f"{' or '.join(NAMES[split])}{fix}."
    )


def _find_pictures(places: Sequence[Path], names: Sequence[str], spec: str) -> tuple[Members, np.ndarray]:
    """The files of the first of these folders that has all images, and the row of each image."""
    missing: list[tuple[int, str, Path]] = []
    for place in dict.fromkeys(places):
        if not place.is_dir():
            continue
        members = picture_files(place)
        row = {name: i for i, name in enumerate(members.names)}
        rows = np.array([row.get(name, row.get(_plain_name(name), -1)) for name in names], np.int64)
        lacking = np.flatnonzero(rows < 0)
        if not len(lacking):
            return members, rows
        missing.append((len(lacking), names[int(lacking[0])], place))
    count, first, place = min(missing, key=lambda place: place[0])
    raise UserError(
        f"{spec}: {count} of its {len(names)} images are missing in {printable_text(str(place))}, such as "
        f"{printable_text(first)}."
    )


def _plain_name(name: str) -> str:
    """A name as tools on other systems write it, as a path relative to a folder."""
    return posixpath.normpath(name.replace("\\", "/")).lstrip("/")
