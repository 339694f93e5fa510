"""Folders with annotations in COCO's format: COCO's own layout, and those of tools for labelling."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from simsiam_tf.data.sources.base import SourceOptions, short_digest
from simsiam_tf.data.sources.members import Members
from simsiam_tf.dense_tasks.annotated_files import (
    STRICT,
    check_pictures,
    chosen_files,
    existing_folder,
    files_digest,
    leave_out,
    picture_files,
    read_picture,
)
from simsiam_tf.dense_tasks.annotations import IGNORE, Annotated, AnnotatedSet, no_boxes
from simsiam_tf.dense_tasks.coco_json import CocoFile, read_coco_file
from simsiam_tf.dense_tasks.coco_masks import semantic_mask
from simsiam_tf.runtime.display_text import counted, printable_text
from simsiam_tf.runtime.errors import UserError

NAMES = {"train": ("train2017", "train"), "test": ("val2017", "test", "val", "valid")}  # of splits
FILES = (
    "annotations/instances_{}.json", "{}/_annotations.coco.json", "{}.json", "annotations/{}.json",
)  # fmt: skip


def open_coco(path: str, split: str, masks: bool = False, options: SourceOptions = STRICT) -> AnnotatedSet:
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
        options: how images are checked; and whether one that is missing, cannot be read, or has another size
            than the annotations say is refused or left out.

    Raises:
        UserError: annotations are missing or damaged (`read_coco_file`); or images cannot be used.
    """
    spec = printable_text(f"coco:{path}:{split}")
    folder = existing_folder(path, spec)
    file, places = _annotation_file(folder, split, spec)
    content = read_coco_file(file, masks)
    members, rows = _find_pictures(places, content.file_names, spec, options.on_bad_image == "skip")
    members = chosen_files(members, rows, content.file_names, str(file))
    bad, digests, pixels = check_pictures(members, content.sizes, file.name, options)
    fingerprint = short_digest(content.digest.encode(), files_digest(members).encode(), bytes([masks]))
    names = ("background", *content.class_names) if masks else content.class_names
    images = _CocoSet(
        spec, len(rows), names, fingerprint, file.name, content, members, digests, masks, pixels=pixels
    )
    return leave_out(images, {i: (members.names[i], reason) for i, reason in bad.items()}, options)


@dataclasses.dataclass(frozen=True)
class _CocoSet(AnnotatedSet):
    """digests: of the images, b"" where unknown."""

    file: str
    content: CocoFile
    members: Members
    digests: np.ndarray
    masks: bool

    def read(self, index: int) -> Annotated:
        content = self.content
        width, height = content.sizes[index].tolist()
        checked = bool(self.digests[index])
        image = read_picture(self.members, index, width, height, self.file, checked, self.pixels)
        objects = self._objects(index)
        labels, ignored = content.labels[objects], content.ignored[objects]
        if not self.masks:
            return Annotated(image, content.boxes[objects], labels, ignored)
        values = np.where(ignored, IGNORE, labels + 1)
        mask = semantic_mask(content.segmentations[objects], values, height, width)
        return Annotated(image, **no_boxes(), mask=mask)

    def has_truth(self, index: int) -> bool:
        if self.masks:
            return super().has_truth(index)
        return not self.content.ignored[self._objects(index)].all()

    def contents(self) -> str:
        return short_digest(self.fingerprint.encode(), self.digests.tobytes())

    def _objects(self, index: int) -> slice:
        return slice(*self.content.starts[index : index + 2].tolist())


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


def _find_pictures(
    places: Sequence[Path], names: Sequence[str], spec: str, some_missing: bool
) -> tuple[Members, np.ndarray]:
    """The files of the first of these folders that has all images, and the row of each image.

    some_missing: whether a folder will do that has most of them; the row of others is −1.
    """
    found: list[tuple[Members, np.ndarray]] = []
    for place in dict.fromkeys(places):
        if not place.is_dir():
            continue
        members = picture_files(place)
        row = {name: i for i, name in enumerate(members.names)}
        rows = np.array([row.get(name, row.get(_plain_name(name), -1)) for name in names], np.int64)
        found.append((members, rows))
        if (rows >= 0).all():
            break
    members, rows = min(found, key=lambda place: int((place[1] < 0).sum()))
    missing = np.flatnonzero(rows < 0)
    if len(missing) and not (some_missing and len(missing) < len(names)):
        fix = "" if len(missing) == len(names) else " on_bad_image=skip leaves them out."
        raise UserError(
            f"{spec}: {printable_text(str(members.root))} lacks {len(missing)} of its "
            f"{counted(len(names), 'image')}, such as {printable_text(names[int(missing[0])])}.{fix}"
        )
    return members, rows


def _plain_name(name: str) -> str:
    """A name as tools on other systems write it, as a path relative to a folder."""
    return posixpath.normpath(name.replace("\\", "/")).lstrip("/")
