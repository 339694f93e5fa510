"""A specification opens the set of its kind and split, or is refused with what to type."""

import json

import numpy as np
import pytest
from PIL import Image

from simsiam_tf.dense_tasks.annotated_files import STRICT
from simsiam_tf.dense_tasks.annotations import AnnotatedSet
from simsiam_tf.dense_tasks.open_set import ANNOTATED_SETS, AnnotatedSetType, Request, open_annotated
from simsiam_tf.runtime.errors import UserError


@pytest.fixture
def coco(tmp_path):
    """A folder whose images are named train and test, with one box each, and masks beside it."""
    box = [0, 0, 2, 2, 2, 0]
    for split in ("train", "test"):
        annotation = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "segmentation": [box]}
        image = {"id": 1, "file_name": f"{split}.png", "width": 3, "height": 2}
        content = {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": split}]}
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
        Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(tmp_path / f"{split}.png")
        for folder, value in (("images", 9), ("masks", 1)):
            (tmp_path / folder / split).mkdir(parents=True)
            Image.fromarray(np.full((2, 3), value, np.uint8)).save(tmp_path / folder / split / "a.png")
    return tmp_path


def test_a_split_in_the_specification_goes_first(coco):
    for given, split, expected in (("", "train", "train"), ("", "test", "test"), (":test", "train", "test")):
        opened = open_annotated(f"coco:{coco}{given}", split, "detection")
        assert opened.class_names == (expected,) and opened.name == f"coco:{coco}:{expected}"
        opened = open_annotated(f"masks:{coco}/images,{coco}/masks{given}", split, "segmentation")
        assert opened.name.endswith(f"masks:{expected}")


def test_the_task_chooses_boxes_or_masks(coco):
    boxes, masks = (open_annotated(f"coco:{coco}", "train", task) for task in ("detection", "segmentation"))
    assert boxes.read(0).mask is None and len(boxes.read(0).boxes) == 1 and boxes.channels == 3
    assert masks.read(0).mask.shape == (2, 3) and len(masks.read(0).boxes) == 0
    assert boxes.fingerprint != masks.fingerprint


def test_a_row_is_enough_for_another_kind(monkeypatch):
    opened = AnnotatedSet("made", 1, (), "")
    asked = Request("a:b", "test", "detection", "d", 7, 96, STRICT)
    row = AnnotatedSetType("made:X", lambda request: opened if request == asked else None)
    monkeypatch.setitem(ANNOTATED_SETS, "made", row)
    assert open_annotated("made:a:b:test", "train", "detection", "d", 7, 96) is opened


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("cocoa:/x", "train", "detection"), "cocoa:/x: no such annotated set. Did you mean coco? Pass"),
        (("mask:/x", "train", "detection"), "Did you mean masks? Pass one of coco:FOLDER[:SPLIT], masks:"),
        (("", "train", "detection"), ": no such annotated set. Choose from coco, masks, tfds, scenes. Pass"),
        (("/", "train", "detection"), "/: no such annotated set. Pass coco:/, or masks:IMAGES,MASKS."),
        (("coco:", "train", "detection"), "coco::train: no such folder: ."),
        (("coco:/x", "train", "detect"), "task=detect: no such task. Did you mean detection?"),
        (("coco:/x", "tests", "detection"), "split=tests: no such split. Did you mean test?"),
        (("masks:/x,/y", "train", "detection"), "has no boxes. Pass task=segmentation"),
        (("tfds:voc/2007:test", "train", "segmentation"), "tfds:voc/2007:test: has boxes alone"),
        (("tfds:coco/2017", "train", "detection"), "tfds:coco/2017:train: is no set with boxes"),
    ],
)  # fmt: skip
def test_what_to_type_instead(arguments, line):
    with pytest.raises(UserError) as error:
        open_annotated(*arguments)
    assert line in str(error.value) and "\n" not in str(error.value)
