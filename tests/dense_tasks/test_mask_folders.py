"""Masks hold the stored numbers, with the picture of their name, and what is no mask is refused."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from simsiam_tf.data.sources.base import SourceOptions
from simsiam_tf.dense_tasks import mask_folders
from simsiam_tf.dense_tasks.annotations import IGNORE
from simsiam_tf.dense_tasks.mask_folders import open_masks, stored_numbers
from simsiam_tf.runtime.errors import UserError

SKIP = SourceOptions(on_bad_image="skip")
MASK = np.array([[0, 1, 2], [3, IGNORE, 0]], np.uint8)
COLOURS = np.arange(768, dtype=np.uint8).reshape(256, 3)[::-1].tobytes()


def indexed(numbers, mode="P"):
    image = Image.fromarray(np.asarray(numbers, np.uint8))
    if mode == "P":
        image.putpalette(COLOURS)
    return image


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **options)


def save_pair(folder, stem, shade=0, mask=MASK, suffix=".png"):
    save(folder / "images" / f"{stem}{suffix}", np.full((2, 3, 3), shade, np.uint8))
    save(folder / "masks" / f"{stem}.png", indexed(mask))


def open_pairs(folder, split="train", **options):
    return open_masks(f"{folder}/images,{folder}/masks", split, **options)


def trained(folder, *names):
    """Pairs in folders train and test, so that which is for testing does not depend on names."""
    for name in names:
        save_pair(folder / "t", f"train/{name}")
    save_pair(folder / "t", "test/z")
    return folder / "t"


@pytest.mark.parametrize("mode", ["P", "L"])
def test_stored_numbers_are_classes(tmp_path, mode):
    folder = trained(tmp_path, "a")
    save(folder / "masks" / "train" / "a.png", indexed(MASK, mode))
    opened = open_pairs(folder)
    found = opened.read(0)
    np.testing.assert_array_equal(found.mask, MASK)
    assert found.mask.dtype == np.uint8 and found.image.shape == (2, 3, 3) and found.boxes.shape == (0, 4)
    assert opened.class_names == ("class 0", "class 1", "class 2", "class 3")


def png(bits, colour_type, row):
    """A PNG of one row of four pixels: 0 is gray, 3 has a palette. Written by hand."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 1, bits, colour_type, 0, 0, 0))]
    parts += [chunk(b"PLTE", COLOURS[: 3 << bits])] if colour_type == 3 else []
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [*parts, chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")]
    )


@pytest.mark.parametrize("colour_type", [0, 3], ids=["gray", "palette"])
@pytest.mark.parametrize(
    ("bits", "row", "numbers"),
    [(1, b"\x50", [0, 1, 0, 1]), (2, b"\x1b", [0, 1, 2, 3]), (4, b"\x01\x2f", [0, 1, 2, 15]),
     (8, b"\x00\x01\x02\xff", [0, 1, 2, 255])],
)  # fmt: skip
def test_numbers_of_few_bits_are_not_stretched(bits, row, numbers, colour_type):
    assert stored_numbers(png(bits, colour_type, row)).tolist() == [numbers]


def test_pairs_have_names_and_other_suffixes(tmp_path, capsys):
    folder = trained(tmp_path, "b/x", "a", "c")
    save(folder / "images" / "train" / "alone.jpg", np.zeros((2, 3, 3), np.uint8))
    for name in ("left", "alone2"):
        save(folder / "masks" / "train" / f"{name}.png", indexed(MASK))
    (folder / "images" / "train" / "a.png").unlink()
    save(folder / "images" / "train" / "a.bmp", np.full((2, 3, 3), 77, np.uint8))
    save(folder / "masks" / "train" / "c.png", indexed(MASK + (MASK == 3)))
    opened = open_pairs(folder)
    read = [opened.read(i) for i in range(opened.size)]
    assert [one.image[0, 0, 0] for one in read] == [77, 0, 0] and len(opened.class_names) == 5
    assert [one.mask.tolist() == MASK.tolist() for one in read] == [True, True, False]
    line = "1 picture without a mask, such as alone and 2 masks without a picture, such as alone2\n"
    assert capsys.readouterr().err.endswith(f"train: left out: {line}")


def test_folders_of_splits(tmp_path):
    """Classes are those of the masks of both splits."""
    for shade, name in enumerate(["train/a", "val/b", "test/c"]):
        save_pair(tmp_path, name, shade, MASK * (shade != 0) + (shade == 0))
    one, other = open_pairs(tmp_path, "train"), open_pairs(tmp_path, "test")
    assert (one.size, other.size) == (1, 1) and other.read(0).image[0, 0, 0] == 2, "not of val"
    assert one.class_names == other.class_names and len(one.class_names) == 4
    assert one.contents() != other.contents()


def test_without_folders_a_hash_of_the_name_chooses(tmp_path):
    """Each pair is in one split, and stays there where others come."""
    sizes = []
    for first, last in ((40, 80), (3, 40)):  # names that come before the others, too
        for shade in range(first, last):
            save_pair(tmp_path, f"{shade:02}", shade)
        sets = {split: open_pairs(tmp_path, split) for split in ("train", "test")}
        found = {s: {int(one.read(i).image[0, 0, 0]) for i in range(one.size)} for s, one in sets.items()}
        assert found["train"] | found["test"] == set(range(first, 80)) and not found["train"] & found["test"]
        sizes.append(found["test"])
    assert sizes[0] == {s for s in sizes[1] if s >= 40} and 0 < len(sizes[0]) < 12


def test_names_of_classes(tmp_path):
    folder = trained(tmp_path, "a")
    names = folder / "classes.txt"
    names.write_text("sky\n\n tree \ncar\nbus\n")
    opened = open_pairs(folder)
    assert opened.class_names == ("sky", "class 1", "tree", "car", "bus")
    (folder / "masks" / "classes.txt").write_text("a\nb\nc\nd")
    inside = open_pairs(folder)
    assert inside.class_names == ("a", "b", "c", "d") and inside.contents() != opened.contents()
    (folder / "masks" / "classes.txt").write_text("a\nb\nc\n")
    with pytest.raises(UserError, match="classes.txt: has 3 lines, .* its masks hold 0 … 3"):
        open_pairs(folder)


def colours(path):
    save(path, np.zeros((2, 3, 3), np.uint8))


@pytest.mark.parametrize(
    ("write", "line"),
    [
        (colours, "a.png .a mask holds one number of 8 bits a pixel, and not RGB. Save the number"),
        (lambda path: save(path, Image.new("LA", (3, 2))), "and not LA. Save the number"),
        (lambda path: save(path, np.zeros((2, 3), np.uint16)), "and not I;16. Save the number"),
        (lambda path: save(path, Image.new("L", (3, 2)), format="JPEG"), "JPEG, but masks are PNG. Save"),
        (lambda path: path.write_bytes(b"%PDF"), "a.png .a PDF, not an image"),
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "masks/train/a.png .damaged"),
    ],
)
def test_what_is_no_mask_is_refused_before_any_work(tmp_path, write, line):
    folder = trained(tmp_path, "a", "b")
    write(folder / "masks" / "train" / "a.png")
    with pytest.raises(UserError, match=line):
        open_pairs(folder)
    opened = open_pairs(folder, options=SKIP)
    assert opened.size == 1 and opened.read(0).mask.tolist() == MASK.tolist()


def test_masks_of_0_and_255_are_refused(tmp_path):
    """255 would be no class at all."""
    for name in ("train/a", "test/b"):
        save_pair(tmp_path, name, mask=np.where(MASK, 255, 0))
    with pytest.raises(UserError, match="hold no class but 0, the background; 255 stands for no class"):
        open_pairs(tmp_path)


def test_a_mask_of_another_size_names_both(tmp_path):
    folder = trained(tmp_path, "a")
    save(folder / "masks" / "train" / "a.png", indexed(MASK.T))
    unchecked = open_pairs(folder, options=SourceOptions(check="none"))
    with pytest.raises(
        ValueError, match="images/train/a.png: is 3×2 .* but 2×3 in its mask .*masks/train/a.png"
    ):
        unchecked.read(0)
    with pytest.raises(UserError, match="such as a.png .is 3×2 pixels .* but 2×3 in its mask. Scale one"):
        open_pairs(folder)


def test_missing_pairs_and_folders(tmp_path):
    save_pair(tmp_path / "one", "a")
    save_pair(tmp_path / "two", "b")
    both = f"{tmp_path}/one/images,{tmp_path}/two/masks"
    with pytest.raises(UserError, match="no picture has a mask of the same name .*such as a and .*such as b"):
        open_masks(both, "train")
    save(tmp_path / "one" / "images" / "a.jpg", np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(UserError, match="a.png and another file there have the same name"):
        open_pairs(tmp_path / "one")
    empty = "test" if open_pairs(tmp_path / "two").size else "train"
    with pytest.raises(UserError, match="holds no pair of this split"):
        open_pairs(tmp_path / "two", empty)
    for folders in (f"{tmp_path}/one", f"{both},{tmp_path}", ",x"):
        with pytest.raises(UserError, match="needs two folders: masks:IMAGES,MASKS"):
            open_masks(folders, "train")
    with pytest.raises(UserError, match="no such folder: /nowhere"):
        open_masks(f"{tmp_path},/nowhere", "train")
    with pytest.raises(UserError, match="has no boxes. Pass task=segmentation"):
        open_masks(both, "train", "detection")


def test_masks_are_read_again_where_they_changed(tmp_path, monkeypatch):
    read, stored = [], mask_folders.stored_numbers
    monkeypatch.setattr(mask_folders, "stored_numbers", lambda data: read.append(1) or stored(data))
    folder = trained(tmp_path, "a", "b")
    first = open_pairs(folder)
    assert open_pairs(folder).contents() == first.contents() and len(read) == 3
    save(folder / "masks" / "train" / "a.png", indexed(MASK * 0 + 9))
    assert len(open_pairs(folder).class_names) == 10 and open_pairs(folder).contents() != first.contents()
