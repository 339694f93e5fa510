"""Images that cannot be used are found before the training, and refused or left out with their truth."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simsiam_tf.config import TransferConfig
from simsiam_tf.data import AUGMENTATIONS, Views
from simsiam_tf.data.sources.base import SourceOptions
from simsiam_tf.dense_tasks import transfer_images
from simsiam_tf.dense_tasks.coco_folder import open_coco
from simsiam_tf.dense_tasks.framing import Framing
from simsiam_tf.dense_tasks.mask_folders import open_masks
from simsiam_tf.dense_tasks.open_set import open_annotated
from simsiam_tf.dense_tasks.scenes import open_scenes
from simsiam_tf.dense_tasks.square_batches import TrainingBatches, evaluation_batches
from simsiam_tf.loop.workdir import error_text
from simsiam_tf.runtime.errors import UserError

SKIP = SourceOptions(on_bad_image="skip")
SIDE = 32
VIEWS = Views(AUGMENTATIONS["imagenet"])


def save(path, shade=0, shape=(20, 20, 3), **options):
    """Noise with the shade in the first column; or a mask of this class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full(shape, shade, np.uint8)
    if len(shape) == 3:
        pixels[:, 1:] = np.random.default_rng(0).integers(0, 256, pixels[:, 1:].shape)
    Image.fromarray(pixels).save(path, **options)


def damage(path):
    """Cuts the file off within its pixels: the header stays whole."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def write_coco(folder, split="train", count=5, **fields):
    """Images 0.png, 1.png … of that shade; image i has one box, at x = i."""
    for i in range(count):
        save(folder / split / f"{i}.png", i)
    images = [{"id": i, "file_name": f"{i}.png", "width": 20, "height": 20} for i in range(count)]
    boxes = [{"image_id": i, "category_id": 1, "bbox": [i, 0, 5, 5], **fields} for i in range(count)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "a"}]}
    (folder / f"{split}.json").write_text(json.dumps(content))
    return folder


def test_images_are_left_out_with_their_boxes(tmp_path, capsys):
    """One is damaged behind its header, one has another size, one is missing."""
    folder, report = write_coco(tmp_path), tmp_path / "run" / "unreadable.json"
    whole = open_coco(str(folder), "train")
    damage(folder / "train" / "1.png")
    save(folder / "train" / "3.png", 3, (20, 21, 3))
    (folder / "train" / "4.png").unlink()
    with pytest.raises(UserError, match="train lacks 1 of its 5 images, such as 4.png.*=skip leave"):
        open_coco(str(folder), "train")
    options = SourceOptions(on_bad_image="skip", report=report)
    opened = open_coco(str(folder), "train", options=options)
    assert "3 of 5 images left out; named in" in capsys.readouterr().err
    named = json.loads(report.read_text())["unreadable"]
    assert named.keys() == {"1.png", "3.png", "4.png"} and "21×20" in named["3.png"]
    read = [opened.read(i) for i in range(opened.size)]
    assert [one.image[0, 0, 0] for one in read] == [0, 2] and [one.boxes[0, 0] for one in read] == [0, 2]
    save(folder / "train" / "4.png", 4)
    with pytest.raises(UserError, match="2 of 5 images cannot be used: 1 × .*1.png; 1 × .*3.png. Mend"):
        open_coco(str(folder), "train")
    mended = open_coco(str(folder), "train", options=SKIP)
    assert len({images.contents() for images in (whole, opened, mended)}) == 3
    assert len({images.fingerprint for images in (whole, opened, mended)}) == 3


def test_a_header_shows_no_damage_behind_it(tmp_path):
    damage(write_coco(tmp_path) / "train" / "1.png")
    assert open_coco(str(tmp_path), "train", options=SourceOptions(check="header")).size == 5
    with pytest.raises(UserError, match="1 of 5 images cannot be used, such as 1.png"):
        open_coco(str(tmp_path), "train")


def test_a_set_of_which_nothing_is_left_is_refused(tmp_path):
    write_coco(tmp_path, count=2)
    for i in range(2):
        damage(tmp_path / "train" / f"{i}.png")
    with pytest.raises(UserError, match="not one of its images can be used"):
        open_coco(str(tmp_path), "train", options=SKIP)
    for i in range(2):
        (tmp_path / "train" / f"{i}.png").unlink()
    with pytest.raises(UserError, match="lacks 2 of its 2 images"):
        open_coco(str(tmp_path), "train", options=SKIP)


def test_contents_of_the_same_size_are_noticed(tmp_path):
    """A file of as many bytes is another image: a run must not continue with it."""
    path = write_coco(tmp_path) / "train" / "2.png"
    save(path, 2, format="BMP")
    before = open_coco(str(tmp_path), "train"), path.read_bytes()
    save(path, 9, format="BMP")
    assert len(path.read_bytes()) == len(before[1])
    assert open_coco(str(tmp_path), "train").contents() != before[0].contents()


def test_pairs_are_left_out(tmp_path):
    """A damaged picture, a damaged mask, and a mask of another size."""
    for i in range(5):
        for split in ("train", "test"):
            save(tmp_path / "images" / split / f"{i}.png", i)
            save(tmp_path / "masks" / split / f"{i}.png", i + 1, (20, 20))
    damage(tmp_path / "images" / "train" / "0.png")
    damage(tmp_path / "masks" / "train" / "2.png")
    save(tmp_path / "masks" / "train" / "3.png", 4, (20, 19))
    both = f"{tmp_path}/images,{tmp_path}/masks"
    for _ in range(2):  # the second time by the cache
        with pytest.raises(UserError, match="3 of 5 images cannot be used: .*19×20 in its mask"):
            open_masks(both, "train")
    opened = open_masks(both, "train", options=SKIP)
    read = [opened.read(i) for i in range(opened.size)]
    assert [(one.image[0, 0, 0], one.mask[0, 0]) for one in read] == [(1, 2), (4, 5)]
    assert open_masks(both, "test").size == 5


def test_scenes_leave_out_objects(tmp_path):
    for label in "ab":
        for i in range(10):
            save(tmp_path / label / f"{i}.png", 9)
    damage(tmp_path / "a" / "1.png")
    with pytest.raises(UserError, match="1 of 20 images cannot be decoded, such as a/1.png"):
        open_scenes(f"folder:{tmp_path}", "train", 8, SIDE)
    opened = open_annotated(f"scenes:folder:{tmp_path}", "train", "detection", reading=SKIP)
    assert opened.source.size + 2 == 19  # two are for the test


def first_failure(images):
    """The line about an image that cannot be read in training, and that in the evaluation."""
    batches = TrainingBatches(images, Framing(SIDE), VIEWS, False, 2, 0, (0, 2))
    with pytest.raises(tf.errors.OpError) as error:
        list(batches.dataset(0, 9))
    with pytest.raises(UserError) as evaluation:
        list(evaluation_batches(images, Framing(SIDE), VIEWS, np.arange(images.size), 2))
    return error_text(error.value), str(evaluation.value)


@pytest.mark.parametrize("fault", [damage, lambda path: path.unlink()])
def test_an_image_that_breaks_in_the_run_ends_it_with_one_line(fault, tmp_path):
    opened = open_coco(str(write_coco(tmp_path)), "train")
    fault(tmp_path / "train" / "2.png")
    training, evaluation = first_failure(opened)
    for line in (training, evaluation):
        assert f"{tmp_path}/train/2.png: " in line and "Error" not in line and "\n" not in line


def test_an_unchecked_image_is_named_too(tmp_path):
    damage(write_coco(tmp_path) / "train" / "2.png")
    lines = first_failure(open_coco(str(tmp_path), "train", options=SourceOptions(check="none")))
    assert all(f"{tmp_path}/train/2.png: " in line and "Error" not in line for line in lines)


def test_an_object_of_a_scene_that_vanishes_is_named(tmp_path):
    for label in "ab":
        for i in range(10):
            save(tmp_path / label / f"{i}.png", 9)
    opened = open_scenes(f"folder:{tmp_path}", "train", 16, SIDE)
    for path in (tmp_path / "a").iterdir():
        path.unlink()
    for line in first_failure(opened):
        assert f"{tmp_path}/a/" in line and ".png: No such file" in line and "Error" not in line


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_set_without_truth_is_refused(split, tmp_path):
    """AP would be no number."""
    for name in ("train", "test"):
        write_coco(tmp_path, name, **({"iscrowd": 1} if name == split else {}))
    for name in ("train", "test"):
        opened = open_coco(str(tmp_path), name)
        if name == split:
            with pytest.raises(UserError, match=f"{name}: has no boxes, or only ignored ones"):
                transfer_images.check_truth(opened, "detection")
        else:
            transfer_images.check_truth(opened, "detection")


def test_masks_without_a_known_pixel_are_refused(tmp_path):
    for split, value in (("train", 1), ("test", 255)):
        save(tmp_path / "images" / split / "a.png")
        save(tmp_path / "masks" / split / "a.png", value, (20, 20))
    train, test = (open_masks(f"{tmp_path}/images,{tmp_path}/masks", split) for split in ("train", "test"))
    transfer_images.check_truth(train, "segmentation")
    with pytest.raises(UserError, match="test: has no pixels of a class in its masks"):
        transfer_images.check_truth(test, "segmentation")


def test_options_have_an_effect_on_files_alone():
    def configured(data):
        return TransferConfig(weights="w", data=data, check="header", on_bad_image="skip").validate()

    for data in ("coco:x", "masks:x,y", "scenes:folder:x"):
        configured(data)
    for data in ("scenes:digits", "tfds:voc/2007"):
        with pytest.raises(UserError, match="has no effect with `data` without image files"):
            configured(data)
