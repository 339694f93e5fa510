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
from simsiam_tf.data.sources.base import SourceOptions, short_digest
from simsiam_tf.data.sources.file_records import kept_arrays
from simsiam_tf.data.sources.members import Members, file_digest
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
from simsiam_tf.dense_tasks.annotations import IGNORE, SEGMENTATION, Annotated, AnnotatedSet, no_boxes
from simsiam_tf.runtime import cores, progress
from simsiam_tf.runtime.display_text import counted, one_line, printable_text
from simsiam_tf.runtime.errors import UserError

TEST_FOLDERS = ("test", "val", "valid")
TEST_SHARE = 10  # every so many pairs one is for testing, where there are no folders for it
NAMES_FILE = "classes.txt"
HOW_TO_INDEX = (
    "Save the number of each pixel's class, and 255 where there is none: "
    "PIL.Image.fromarray(classes.astype('uint8')).save('mask.png')"
)


@dataclasses.dataclass(frozen=True)
class _Pairs:
    """Pictures and masks, in the same order. stems: name of each pair."""

    images: Members
    masks: Members
    stems: list[str]

    def chosen(self, which: np.ndarray, part: str) -> _Pairs:
        """The pairs of a part of this name; which: bool [n]."""
        rows = np.flatnonzero(which)
        stems = [self.stems[row] for row in rows]
        images, masks = (chosen_files(files, rows, stems, part) for files in (self.images, self.masks))
        return _Pairs(images, masks, stems)

    def digest(self) -> str:
        return short_digest(files_digest(self.images).encode(), files_digest(self.masks).encode())


def open_masks(
    folders: str, split: str, task: str = SEGMENTATION, options: SourceOptions = STRICT
) -> AnnotatedSet:
    """Opens a split of pictures and masks of the same names: IMAGES/a/b.jpg and MASKS/a/b.png.

    A mask is a PNG with a palette, gray or of one bit. Its stored numbers are classes, 255 is `IGNORE`.
    There are as many classes as the largest number in the masks of all splits says, or as classes.txt, in
    MASKS or beside it, has lines: their names.

    Args:
        folders: "IMAGES,MASKS".
        split: "train" is the folder train in both, "test" is test, val or valid, the first that is there;
            where there are none, about every tenth pair, by a hash of its name, is for testing.
        options: how pictures are checked; and whether a pair is refused or left out whose picture or mask
            cannot be read, whose mask is none, such as one with colours, or whose sizes differ.

    Raises:
        UserError: no pair; fewer names than classes; or pairs cannot be used.
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
    if not pairs.stems:
        raise UserError(
            f"{spec}: holds no pair of this split: about each tenth is for testing. Pass more, or "
            "make folders train and test in both."
        )
    records = {name: _mask_records(part) for name, part in splits.items() if part.stems}
    masks = records[split]
    bad = {
        int(i): (_path(pairs.masks, int(i)), str(masks["reasons"][i]))
        for i in np.flatnonzero(masks["reasons"])
    }
    bad_images, digests, pixels = check_pictures(pairs.images, masks["sizes"], "its mask", options)
    bad = {i: (pairs.images.names[i], reason) for i, reason in bad_images.items()} | bad
    names = _class_names(places[1], max(int(part["largest"].max()) for part in records.values()), spec)
    fingerprint = short_digest(pairs.digest().encode(), "\n".join(names).encode())
    images = _MaskSet(spec, len(pairs.stems), names, fingerprint, pairs, digests, masks, pixels=pixels)
    return leave_out(images, bad, options)


@dataclasses.dataclass(frozen=True)
class _MaskSet(AnnotatedSet):
    """digests: of the pictures, b"" where unknown. records: of the masks, as of `_mask_records`."""

    pairs: _Pairs
    digests: np.ndarray
    records: dict[str, np.ndarray]

    def read(self, index: int) -> Annotated:
        mask = _read_mask(self.pairs.masks, index)
        height, width = mask.shape
        of_mask = f"its mask {printable_text(_path(self.pairs.masks, index))}"
        checked = bool(self.digests[index])
        image = read_picture(self.pairs.images, index, width, height, of_mask, checked, self.pixels)
        return Annotated(image, **no_boxes(), mask=mask)

    def has_truth(self, index: int) -> bool:
        return bool(self.records["largest"][index])

    def contents(self) -> str:
        digests = self.digests.tobytes(), self.records["digests"].tobytes()
        return short_digest(self.fingerprint.encode(), *digests)


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
    return {"train": pairs.chosen(~tests, "train"), "test": pairs.chosen(tests, "test")}


def _pairs_in(images: Path, masks: Path, spec: str) -> _Pairs:
    """All pairs of two folders, sorted by name. A line on stderr counts the files without another."""
    of_images, of_masks = (picture_files(folder) for folder in (images, masks))
    image_rows, mask_rows = _rows_of_stems(of_images, spec), _rows_of_stems(of_masks, spec)
    stems = sorted(image_rows.keys() & mask_rows.keys())
    unpaired = {
        ("picture", "without a mask"): sorted(image_rows.keys() - mask_rows.keys()),
        ("mask", "without a picture"): sorted(mask_rows.keys() - image_rows.keys()),
    }
    left_out = " and ".join(
        f"{counted(len(names), what)} {lacks}, such as {printable_text(names[0])}"
        for (what, lacks), names in unpaired.items()
        if names
    )
    if not stems:
        raise UserError(f"{spec}: no picture has a mask of the same name ({left_out or 'no images'}).")
    if left_out:
        print(f"{spec}: left out: {left_out}", file=sys.stderr)

    def paired(files: Members, rows: dict[str, int]) -> Members:
        return chosen_files(files, np.array([rows[stem] for stem in stems]), stems, "pairs")

    return _Pairs(paired(of_images, image_rows), paired(of_masks, mask_rows), stems)


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
    try:
        return stored_numbers(masks.read(row))
    except ValueError as error:
        raise ValueError(f"{printable_text(_path(masks, row))}: {error}") from error


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


def _mask_records(pairs: _Pairs) -> dict[str, np.ndarray]:
    """What is known of each of n masks; kept in the user's cache while the files stay.

    "reasons": why it cannot be used; "" where it can. Of the others "largest": the largest number below
    `IGNORE`; "sizes": width and height, [n, 2]; "digests": of the file.
    """
    masks = pairs.masks

    def record(row: int) -> tuple[str, int, tuple[int, int], bytes]:
        try:
            data = masks.read(row)
            numbers = stored_numbers(data)
        except (OSError, ValueError) as error:
            return one_line(getattr(error, "strerror", None) or error), 0, (0, 0), b""
        known = numbers[numbers != IGNORE]
        return "", int(known.max(initial=0)), numbers.shape[::-1], file_digest(data)

    def read_all() -> dict[str, np.ndarray]:
        with concurrent.futures.ThreadPoolExecutor(cores.decoding_threads()) as pool:
            read = pool.map(record, range(len(pairs.stems)))
            rows = list(progress.bar(read, "reading masks", total=len(pairs.stems)))
        reasons, largest, sizes, digests = zip(*rows, strict=True)
        return {
            "reasons": np.array(reasons, object), "largest": np.array(largest),
            "sizes": np.array(sizes), "digests": np.array(digests, "S27"),
        }  # fmt: skip

    return kept_arrays(f"mask records\0{masks.root}\0{files_digest(masks, times=True)}", read_all)


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
