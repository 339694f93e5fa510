"""Boxes and masks of COCO's format lie where they are painted, and what is wrong is said in one line."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from simsiam_tf.data.sources.base import SourceOptions
from simsiam_tf.dense_tasks.annotations import IGNORE
from simsiam_tf.dense_tasks.coco_folder import open_coco
from simsiam_tf.runtime.errors import UserError

HEIGHT, WIDTH = 30, 40
RED, GREEN = (255, 0, 0), (0, 255, 0)
CATEGORIES = [{"id": 7, "name": "green"}, {"id": 3, "name": "red"}]


def picture(*rectangles):
    """A black picture with rectangles (left, top, right, lower edge, colour), painted in order."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for left, top, right, bottom, colour in rectangles:
        pixels[top:bottom, left:right] = colour
    return pixels


def image_row(name="a.png", id=1, width=WIDTH, height=HEIGHT):
    return {"id": id, "file_name": name, "width": width, "height": height}


def object_row(bbox=(5, 3, 28, 17), category=3, image=1, **fields):
    return {"image_id": image, "category_id": category, "bbox": list(bbox), **fields}


def content(images=None, annotations=None, categories=None):
    return {
        "images": [image_row()] if images is None else images,
        "annotations": [object_row()] if annotations is None else annotations,
        "categories": CATEGORIES if categories is None else categories,
    }


def save(path, pixels=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture((5, 3, 33, 20, RED)) if pixels is None else pixels).save(path, **options)


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def open_written(folder, masks=False, pixels=None, **parts):
    """The set of one picture and these parts of the json."""
    write(folder / "train.json", content(**parts))
    save(folder / "a.png", pixels)
    return open_coco(str(folder), "train", masks)


def test_boxes_enclose_what_is_painted(tmp_path):
    """Edges in pixels from 0, clipped to the image; labels in the order of ids; crowds ignored."""
    pixels = picture((5, 3, 33, 20, RED), (36, 0, 40, 30, GREEN))
    rows = [
        object_row((36, -4, 30, 90), 7), object_row(), object_row((0, 0, 9, 9), 7, iscrowd=1),
        object_row((50, 3, 4, 4)), object_row((4, 4, 0, 9)),
    ]  # fmt: skip
    opened = open_written(tmp_path, pixels=pixels, annotations=rows)
    assert (opened.size, opened.class_names, opened.name) == (1, ("red", "green"), f"coco:{tmp_path}:train")
    found = opened.read(0)
    np.testing.assert_array_equal(found.image, pixels)
    assert found.labels.tolist() == [1, 0, 1] and found.ignored.tolist() == [False, False, True]
    assert found.mask is None and found.boxes.dtype == np.float32 and found.labels.dtype == np.int64
    for box, colour in zip(found.boxes, (GREEN, RED), strict=False):
        rows, columns = np.nonzero((pixels == colour).all(axis=-1))
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_boxes_without_area_are_counted(tmp_path, capsys):
    rows = [object_row(), object_row((50, 3, 4, 4)), object_row((4, 4, 0, 9)), object_row((9, 9, -4, 4))]
    assert len(open_written(tmp_path, annotations=rows).read(0).boxes) == 1
    assert capsys.readouterr().err.endswith("train.json: 3 boxes without area in their image are left out\n")


def test_annotations_go_to_their_images(tmp_path):
    """Whatever the order of the annotations; an image without any is a negative."""
    names = ["b.png", "sub/a.png", "c.png"]
    images = [image_row(name, id) for name, id in zip(names, (9, 2, 5), strict=True)]
    rows = [object_row((i, 0, 5, 5), image=image) for i, image in enumerate([5, 9, 5, 9, 9])]
    write(tmp_path / "train.json", content(images, rows))
    for shade, name in enumerate(names):
        save(tmp_path / name, np.full((HEIGHT, WIDTH, 3), shade, np.uint8))
    opened = open_coco(str(tmp_path), "train")
    read = [opened.read(i) for i in range(3)]
    assert [one.image[0, 0, 0] for one in read] == [0, 1, 2]
    assert [one.boxes[:, 0].tolist() for one in read] == [[1, 3, 4], [], [0, 2]]
    assert read[1].boxes.shape == (0, 4) and read[1].ignored.shape == (0,)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("files", "pictures"),
    [
        (("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
         ("train2017/a.png", "val2017/a.png")),
        (("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
         ("images/train2017/a.png", "images/val2017/a.png")),
        (("train/_annotations.coco.json", "valid/_annotations.coco.json"), ("train/a.png", "valid/a.png")),
        (("train/_annotations.coco.json", "test/_annotations.coco.json"), ("train/a.png", "test/a.png")),
        (("train.json", "val.json"), ("a.png", "a.png")),
        (("train.json", "test.json"), ("images/a.png", "images/a.png")),
        (("train.json", "val.json"), ("train/a.png", "val/a.png")),
        (("instances.json", "val.json"), ("images/a.png", "images/a.png")),
    ],
)  # fmt: skip
def test_layouts(tmp_path, split, files, pictures):
    for x, file, path in zip((1, 2), files, pictures, strict=True):
        write(tmp_path / file, content(annotations=[object_row((x, 0, 5, 5))]))
        save(tmp_path / path, np.full((HEIGHT, WIDTH, 3), x, np.uint8))
    found = open_coco(str(tmp_path), split).read(0)
    x = {"train": 1, "test": 2}[split]
    assert found.boxes[0, 0] == x and (pictures[0] == pictures[1] or found.image[0, 0, 0] == x)


def test_names_as_other_systems_write_them(tmp_path):
    images = [image_row("\\images\\sub\\a.png", 1), image_row("./images/b.png", 2)]
    write(tmp_path / "result.json", content(images))
    save(tmp_path / "images" / "sub" / "a.png")
    save(tmp_path / "images" / "b.png")
    assert open_coco(str(tmp_path), "train").size == 2


def test_one_file_alone_is_not_for_testing_too(tmp_path):
    write(tmp_path / "instances.json", content())
    save(tmp_path / "a.png")
    assert open_coco(str(tmp_path), "train").size == 1
    with pytest.raises(UserError, match="NAME is val2017 or test or val or valid") as error:
        open_coco(str(tmp_path), "test")
    assert "annotations/instances_NAME.json, NAME/_annotations.coco.json, NAME.json" in str(error.value)
    os.rename(tmp_path / "instances.json", tmp_path / "val.json")
    with pytest.raises(UserError, match="no annotations of this split"):
        open_coco(str(tmp_path), "train")


def square(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


def test_masks_show_the_smaller_object_above_the_larger(tmp_path):
    """A crowd lies below both. Class values are 1 + label, 0 is the background."""
    crowd = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * 10, HEIGHT * (WIDTH - 10)]}  # ten columns
    rows = [
        object_row(category=3, segmentation=square(8, 8, 12, 12)),
        object_row(category=7, segmentation=[*square(5, 5, 20, 20), *square(30, 5, 33, 9)]),
        object_row(category=3, segmentation=crowd, iscrowd=1),
    ]
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:, :10] = IGNORE
    expected[5:20, 5:20] = expected[5:9, 30:33] = 2
    expected[8:12, 8:12] = 1
    opened = open_written(tmp_path, masks=True, annotations=rows)
    found = opened.read(0)
    assert opened.class_names == ("background", "red", "green")
    assert found.mask.dtype == np.uint8 and found.boxes.shape == (0, 4)
    np.testing.assert_array_equal(found.mask, expected)


def test_an_object_without_a_mask_is_ignored_in_its_box(tmp_path, capsys):
    """Its pixels must not pass for background."""
    rows = [object_row((1, 2, 4, 5), segmentation=[]), object_row(segmentation=square(20, 5, 25, 9))]
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[2:7, 1:5], expected[5:9, 20:25] = IGNORE, 1
    np.testing.assert_array_equal(open_written(tmp_path, True, annotations=rows).read(0).mask, expected)
    assert "1 annotations have no segmentation; their boxes are ignored" in capsys.readouterr().err
    with pytest.raises(UserError, match="none of its annotations has a segmentation. Pass task=detection"):
        open_written(tmp_path, True)


def turned(path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(path, quality=95, exif=exif.tobytes())


def test_boxes_are_those_of_the_upright_picture(tmp_path):
    """The stored 40 × 30 pixels are shown turned clockwise: a box at the left becomes one at the top."""
    turned(tmp_path / "a.jpg", 6)
    box = (HEIGHT - 20, 5, 17, 28)
    write(tmp_path / "train.json", content([image_row("a.jpg", 1, HEIGHT, WIDTH)], [object_row(box)]))
    found = open_coco(str(tmp_path), "train").read(0)
    left, top, right, bottom = found.boxes[0].astype(int)
    red = found.image[..., 0] > 128
    assert found.image.shape == (WIDTH, HEIGHT, 3) and red.sum() == red[top:bottom, left:right].sum() == 476


def test_a_picture_of_another_size_is_named(tmp_path):
    turned(tmp_path / "a.jpg", 6)
    write(tmp_path / "train.json", content([image_row("a.jpg")]))

    def is_refused(line):
        """When it is read, where nothing is checked; else at the start, by the header."""
        with pytest.raises(ValueError, match=f"a.jpg: {line}"):
            open_coco(str(tmp_path), "train", options=SourceOptions(check="none")).read(0)
        for check in ("decode", "header"):
            with pytest.raises(UserError, match=f"1 of 1 image cannot be used, such as a.jpg .{line}"):
                open_coco(str(tmp_path), "train", options=SourceOptions(check=check))

    is_refused("is 30×40 pixels .*, but 40×30 in train.json. .*exiftool")
    save(tmp_path / "a.jpg", picture()[:-1])
    is_refused("is 40×29 pixels .*, but 40×30 in train.json. Scale one")
    (tmp_path / "a.jpg").write_bytes(b"GIF89a")
    is_refused("")


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({"images": []}, "its list 'images' is empty"),
        ({"annotations": []}, "its list 'annotations' is empty"),
        ({"categories": []}, "its list 'categories' is empty"),
        ({"images": {}}, "no list 'images' of objects"),
        ({"annotations": [3]}, "no list 'annotations' of objects"),
        ({"images": [image_row(), image_row("b.png")]}, "has 2 images of the id 1"),
        ({"images": [image_row(), image_row(id=2)]}, "has 2 images of the file a.png"),
        ({"categories": [CATEGORIES[0]] * 2}, "has 2 categories of the id 7"),
        ({"images": [image_row(width="40")]}, r"images\[0\] has no whole number 'width': 40"),
        ({"images": [image_row(height=0)]}, r"images\[0\] has no pixels: 40×0"),
        ({"images": [image_row(name=None)]}, r"images\[0\] has no text 'file_name': None"),
        ({"annotations": [object_row(), object_row(image=8)]}, "1 of its 2 .* unknown image_id, such as 8"),
        ({"annotations": [object_row(category=1)]}, "1 of its 1 .* unknown category_id, such as 1"),
        ({"annotations": [object_row((1, 2, 3))]}, r"no box of four numbers: \[1, 2, 3\]"),
        ({"annotations": [object_row((1, 2, 3, float("nan")))]}, "no box of four numbers"),
        ({"annotations": [{"image_id": 1, "category_id": 3}]}, "no box of four numbers: None"),
        ({"images": [image_row(), image_row("no.png", 2)]}, "lacks 1 of its 2 images, such as no.png"),
        ({"images": [image_row("../a.png")]}, "lacks 1 of its 1 image, such"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_in_one_line(tmp_path, parts, line):
    with pytest.raises(UserError, match=line) as error:
        open_written(tmp_path / "set", **parts)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_a_damaged_segmentation_is_named(tmp_path):
    rows = [object_row(segmentation=square(1, 1, 5, 5)), object_row(segmentation=[1, 2, 3, 4, 5, 6])]
    with pytest.raises(UserError, match=r"train.json: annotations\[1\]: its segmentation is no list of poly"):
        open_written(tmp_path, True, annotations=rows)
    assert open_written(tmp_path, False, annotations=rows).size == 1


def test_files_that_are_no_annotations_are_refused(tmp_path):
    for text, line in (("{", "damaged, or no JSON"), ("[1]", "not in COCO's format"), ("\xff", "damaged")):
        (tmp_path / "train.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(UserError, match=f"train.json: is {line}"):
            open_coco(str(tmp_path), "train")
    with pytest.raises(UserError, match="no such folder: /nowhere"):
        open_coco("/nowhere", "train")
    with pytest.raises(UserError, match="'valid' is no split. Pass train or test"):
        open_coco(f"{tmp_path}:valid", "train")


def test_a_mask_holds_254_classes(tmp_path):
    categories = [{"id": i, "name": str(i)} for i in range(1, 256)]
    rows = [object_row(category=254, segmentation=square(0, 0, 40, 30))]
    with pytest.raises(UserError, match="has 255 categories; a mask holds 254 at most"):
        open_written(tmp_path, True, annotations=rows, categories=categories)
    found = open_written(tmp_path, True, annotations=rows, categories=categories[:-1]).read(0)
    assert (found.mask == 254).all()
    assert len(open_written(tmp_path, categories=categories).class_names) == 255


def test_the_fingerprint_follows_pictures_and_annotations(tmp_path):
    def contents():
        return open_coco(str(tmp_path), "train").contents()

    seen = [open_written(tmp_path).contents()]
    save(tmp_path / "other.png")
    assert contents() == seen[0]
    write(tmp_path / "train.json", content(annotations=[object_row((1, 2, 3, 4))]))
    seen.append(contents())
    os.utime(tmp_path / "a.png", ns=(1, 1))
    assert contents() == seen[1]  # a copy of the folder is the same set
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes() + b" ")
    seen.append(contents())
    assert len(set(seen)) == 3


def test_a_picture_that_changes_is_noticed(tmp_path):
    opened = open_written(tmp_path)
    save(tmp_path / "a.png", picture())
    with pytest.raises(OSError, match="changed since the command began"):
        opened.read(0)
