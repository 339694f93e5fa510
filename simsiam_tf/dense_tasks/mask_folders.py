"""Two folders with files of the same names: pictures, and masks whose pixels hold classes."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import io
import os
import posixpath
import struct
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from simsiam_tf.data.images.formats import image_format
from simsiam_tf.data.images.header import read_header
from simsiam_tf.data.sources.base import short_digest
from simsiam_tf.data.sources.file_records import kept_arrays
from simsiam_tf.data.sources.members import Members
from simsiam_tf.dense_tasks.annotated_files import existing_folder, files_digest, picture_files, read_picture
from simsiam_tf.dense_tasks.annotations import IGNORE, SEGMENTATION, Annotated, AnnotatedSet, no_boxes
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.display_text import one_line, printable_text
from simsiam_tf.runtime.errors import UserError

TEST_FOLDERS = ("val", "valid", "test")
TEST_SHARE = 10  # every so many pairs one is for testing, where there are no folders for it
NAMES_FILE = "classes.txt"
HOW_TO_INDEX = (
    "Save the number of each pixel's class, and 255 where there is none: "
    "PIL.Image.fromarray(classes.astype('uint8')).save('mask.png')"
)


@dataclasses.dataclass(frozen=True)
class _Pairs:
    """Pictures and masks. rows: int64 [n, 2], of a picture and of its mask. stems: name of each pair."""

    images: Members
    masks: Members
    stems: list[str]
    rows: np.ndarray

    def chosen(self, which: np.ndarray) -> _Pairs:
        stems = [stem for stem, is_chosen in zip(self.stems, which, strict=True) if is_chosen]
        return dataclasses.replace(self, stems=stems, rows=self.rows[which])

    def digest(self) -> str:
        images, masks = files_digest(self.images, self.rows[:, 0]), files_digest(self.masks, self.rows[:, 1])
        return short_digest(images.encode(), masks.encode())


def open_masks(folders: str, split: str, task: str = SEGMENTATION) -> AnnotatedSet:
    """Opens a split of pictures and masks of the same names: IMAGES/a/b.jpg and MASKS/a/b.png.

    A mask is a PNG with a palette, gray or of one bit. Its stored numbers are classes, 255 is `IGNORE`.
    There are as many classes as the largest number in the masks of all splits says, or as classes.txt, in
    MASKS or beside it, has lines: their names.

    Args:
        folders: "IMAGES,MASKS".
        split: "train" is the folder train in both, "test" is val, valid or test; where there are none, about
            every tenth pair, by a hash of its name, is for testing.

    Raises:
        UserError: no pair; a mask that is none, such as one with colours; fewer names than classes.
    """
    spec = printable_text(f"masks:{folders}:{split}")
    if task != SEGMENTATION:
        raise UserError(f"{spec}: has no boxes. Pass task=segmentation, or coco:FOLDER.")
    images, comma, masks = folders.partition(",")
    if not (images and masks) or "," in masks:
        raise UserError(f"{spec}: needs two folders: masks:IMAGES,MASKS.")
    places = existing_folder(images, spec), existing_folder(masks, spec)
    splits = _split_pairs(*places, spec)
    pairs = splits[split]
    if not len(pairs.rows):
        raise UserError(
            f"{spec}: holds no pair of this split: about each tenth is for testing. Pass more, or "
            "make folders train and test in both."
        )
    largest = max(_largest_class(part, spec) for part in splits.values() if len(part.rows))
    names = _class_names(places[1], largest, spec)
    fingerprint = short_digest(pairs.digest().encode(), "\n".join(names).encode())
    return _MaskSet(spec, len(pairs.rows), names, fingerprint, pairs)


@dataclasses.dataclass(frozen=True)
class _MaskSet(AnnotatedSet):
    pairs: _Pairs

    def read(self, index: int) -> Annotated:
        row, mask_row = self.pairs.rows[index].tolist()
        mask = _read_mask(self.pairs.masks, mask_row)
        height, width = mask.shape
        of_mask = f"its mask {printable_text(_path(self.pairs.masks, mask_row))}"
        image = read_picture(self.pairs.images, row, width, height, of_mask)
        return Annotated(image, **no_boxes(), mask=mask)


def _split_pairs(images: Path, masks: Path, spec: str) -> dict[str, _Pairs]:
    """Split → its pairs."""
    both = [name for name in ("train", *TEST_FOLDERS) if (images / name).is_dir() and (masks / name).is_dir()]
    if "train" in both and len(both) > 1:
        named = {"train": both[0], "test": both[1]}
        return {
            split: _pairs_in(images / name, masks / name, f"{spec}: {name}") for split, name in named.items()
        }
    pairs = _pairs_in(images, masks, spec)
    hashes = [int(short_digest(os.fsencode(stem)), 16) for stem in pairs.stems]
    tests = np.array([value % TEST_SHARE == 0 for value in hashes], bool)
    return {"train": pairs.chosen(~tests), "test": pairs.chosen(tests)}


def _pairs_in(images: Path, masks: Path, spec: str) -> _Pairs:
    """All pairs of two folders, sorted by name. A line on stderr counts the files without another."""
    of_images, of_masks = (picture_files(folder) for folder in (images, masks))
    image_rows, mask_rows = _rows_of_stems(of_images, spec), _rows_of_stems(of_masks, spec)
    stems = sorted(image_rows.keys() & mask_rows.keys())
    unpaired = {
        "pictures without a mask": sorted(image_rows.keys() - mask_rows.keys()),
        "masks without a picture": sorted(mask_rows.keys() - image_rows.keys()),
    }
    left_out = " and ".join(
        f"{len(names)} {what}, such as {printable_text(names[0])}"
        for what, names in unpaired.items()
        if names
    )
    if not stems:
        raise UserError(f"{spec}: no picture has a mask of the same name ({left_out or 'no images'}).")
    if left_out:
        print(f"{spec}: left out: {left_out}", file=sys.stderr)
    rows = np.array([(image_rows[stem], mask_rows[stem]) for stem in stems], np.int64)
    return _Pairs(of_images, of_masks, stems, rows)


def _rows_of_stems(files: Members, spec: str) -> dict[str, int]:
    """Name without its suffix → row of the file."""
    rows: dict[str, int] = {}
    for row, name in enumerate(files.names):
        if row != rows.setdefault(posixpath.splitext(name)[0], row):
            raise UserError(
                f"{spec}: {printable_text(_path(files, row))} and another file there have the same name, but "
                "for the suffix."
            )
    return rows


def _path(files: Members, row: int) -> str:
    return os.path.join(str(files.root), files.names[row])


def _read_mask(masks: Members, row: int) -> np.ndarray:
    """The numbers stored in a mask: uint8 [H, W]. Raises OSError, or ValueError where it is none."""
    data, path = masks.read(row), printable_text(_path(masks, row))
    try:
        return stored_numbers(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def stored_numbers(data: bytes) -> np.ndarray:
    """The numbers stored in a PNG with a palette, gray or of one bit: uint8 [H, W]. Raises ValueError."""
    if image_format(data) != "PNG":
        raise ValueError(f"{image_format(data)}, but masks are PNG. {HOW_TO_INDEX}")
    read_header(data)
    try:
        with Image.open(io.BytesIO(data)) as image:
            mode, numbers = image.mode, np.array(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"damaged: {error}") from error
    if mode not in ("1", "L", "P"):
        raise ValueError(f"a mask holds one number of 8 bits a pixel, and not {mode}. {HOW_TO_INDEX}")
    bits, colour_type = struct.unpack(">BB", data[24:26])  # of IHDR, by read_header the first chunk
    if mode == "L" and colour_type == 0 and bits < 8:  # which Pillow stretches to 0 … 255
        numbers = numbers // (255 // (2**bits - 1))
    return numbers.astype(np.uint8)


def _largest_class(pairs: _Pairs, spec: str) -> int:
    """The largest number below `IGNORE` in all masks; kept in the user's cache while the files stay."""
    masks, rows = pairs.masks, pairs.rows[:, 1]

    def largest(row: int) -> int:
        numbers = _read_mask(masks, row)
        return int(numbers[numbers != IGNORE].max(initial=0))

    def largest_of_all() -> dict[str, np.ndarray]:
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            try:
                found = pool.map(largest, rows.tolist())
                return {"largest": np.array(max(progress.bar(found, "reading masks", total=len(rows))))}
            except (OSError, ValueError) as error:
                raise UserError(f"{spec}: {one_line(error)}") from error
            finally:
                pool.shutdown(cancel_futures=True)

    return int(
        kept_arrays(f"masks\0{masks.root}\0{files_digest(masks, rows, times=True)}", largest_of_all)[
            "largest"
        ]
    )


def _class_names(masks: Path, largest: int, spec: str) -> tuple[str, ...]:
    """Names of the classes by number: of a file in the folder of masks or beside it, else "class 0" …"""
    file = next((p for p in (masks / NAMES_FILE, masks.parent / NAMES_FILE) if p.is_file()), None)
    if not largest:
        raise UserError(
            f"{spec}: its masks hold no class but 0, the background; {IGNORE} stands for no class. Where it "
            "stands for an object, save it as 1."
        )
    if file is None:
        return tuple(f"class {number}" for number in range(largest + 1))
    shown = printable_text(str(file))
    try:
        names = file.read_text("utf-8-sig").rstrip().splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{shown}: cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    if not largest < len(names) <= IGNORE:
        raise UserError(
            f"{shown}: has {len(names)} lines, one for each class from 0; its masks hold 0 … {largest}, and "
            f"may hold up to {IGNORE - 1}."
        )
    return tuple(name.strip() or f"class {number}" for number, name in enumerate(names))
