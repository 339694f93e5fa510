"""The images of a transfer become pixels as in the pre-training, and those that teach nothing are refused."""

import dataclasses
import json
import logging

import numpy as np
import pytest
from PIL import Image

from simsiam_tf import nets
from simsiam_tf.command_line import cli
from simsiam_tf.config import TransferConfig
from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.data.sources.base import SourceOptions
from simsiam_tf.dense_tasks import transfer_images
from simsiam_tf.dense_tasks.annotations import IGNORE
from simsiam_tf.dense_tasks.scenes import open_scenes
from simsiam_tf.dense_tasks.transfer_images import open_images
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.pretrained.pretrained_backbone import open_pretrained
from simsiam_tf.runtime.errors import UserError

DEEP = np.linspace(0, 4095, 64).reshape(8, 8).astype(np.uint16)  # 12 bits in 16


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A function: card's "pixels", channels → an exported backbone."""
    made = {}

    def export(pixels, channels=3):
        known = json.dumps([pixels, channels])
        if known in made:
            return made[known]
        folder = made[known] = tmp_path_factory.mktemp("backbone")
        name = "imagenet" if channels == 3 else "grayscale"
        views = json.loads(json.dumps(dataclasses.asdict(AUGMENTATIONS[name])))
        card = {"step": 1, "views": views, "configuration": {}, "pixels": pixels}
        backbone_file.export_network(nets.resnet10("imagenet", width=0.25, channels=channels), folder, card)
        return folder

    return export


def save_pairs(folder, image, masks=((0, 1), (0, 2))):
    """Folders of pictures and masks of 8×8 pixels for both splits, each mask with the values given."""
    for split in ("train", "test"):
        for i, values in enumerate(masks):
            for kind in ("images", "masks"):
                (folder / kind / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / "images" / split / f"{i}.png")
            mask = np.resize(np.array(values, np.uint8), (8, 8))
            Image.fromarray(mask).save(folder / "masks" / split / f"{i}.png")
    return f"masks:{folder}/images,{folder}/masks"


def opened(weights, data, *more):
    flags = [f"--weights={weights}", f"--data={data}", "--task=segmentation", *more]
    return open_images(cli.parse(TransferConfig, flags), open_pretrained(weights))


def scaled(low, high):
    return np.clip((DEEP.astype(float) - low) / (high - low) * 255, 0, 255)


@pytest.mark.parametrize(
    ("pixels", "flags", "low", "high"),
    [
        ({"background": "white", "pixel_range": "0,8190"}, [], 0, 8190),
        ({"background": "white", "pixel_range": "0,8190"}, ["--pixel_range=0,2000"], 0, 2000),
        ({}, ["--pixel_range=type"], 0, 65535),
        ({}, [], 0, 4095),
    ],
    ids=["as trained", "given", "of the type", "measured"],
)
def test_deep_pixels_become_those_of_the_pre_training(backbone, tmp_path, pixels, flags, low, high):
    for images in opened(backbone(pixels), save_pairs(tmp_path, DEEP), *flags):
        found = images.read(0).image
        assert found.shape == (8, 8, 3)
        np.testing.assert_allclose(found[..., 0], scaled(low, high), atol=1.5)


def test_test_images_get_the_range_of_the_training_images(backbone, tmp_path):
    data = save_pairs(tmp_path, DEEP)
    Image.fromarray(DEEP // 2).save(tmp_path / "images" / "test" / "0.png")
    train, test = opened(backbone({}), data)
    assert train.pixels == test.pixels and "pixel_range" in train.pixels
    np.testing.assert_allclose(test.read(0).image[..., 0], scaled(0, 4095) / 2, atol=1.5)


def test_transparent_pixels_lie_on_the_background_of_the_pre_training(backbone, tmp_path):
    data = save_pairs(tmp_path, np.zeros((8, 8, 4), np.uint8))
    for pixels, flags, colour in (
        ({}, [], (255, 255, 255)), ({"background": "black"}, [], (0, 0, 0)),
        ({"background": "black"}, ["--background=#102030"], (16, 32, 48)),
    ):  # fmt: skip
        train, test = opened(backbone(pixels), data, *flags)
        assert (train.read(0).image == colour).all() and (test.read(0).image == colour).all()


def test_scenes_take_files_that_pillow_cannot_open_and_the_same_pixel_rule(tmp_path):
    for label, values in enumerate((DEEP, DEEP // 2)):
        (tmp_path / str(label)).mkdir()
        for i in range(10):
            np.save(tmp_path / str(label) / f"{i}.npy", values[..., None])
    options = SourceOptions(pixel_range="0,8190")
    images = open_scenes(f"folder:{tmp_path}", "train", 6, 64, options=options)
    assert images.pixels == {"background": "white", "pixel_range": "0,8190"}
    scene = images.read(0)
    assert len(scene.boxes) and len(images.source.decode(0).numpy()) == 8
    assert images.source.decode(0).numpy().max() == pytest.approx(scaled(0, 8190).max(), abs=1.5)


def test_the_opacity_of_files_that_pillow_cannot_open_is_seen(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    values = np.concatenate([np.repeat(DEEP[..., None], 3, -1), np.zeros((8, 8, 1), np.uint16)], -1)
    values[2:5, 3:7, 3] = 65535
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(10):
            path = tmp_path / label / f"{i}.tif"
            tifffile.imwrite(path, values, photometric="rgb", extrasamples=["unassalpha"])
    images = open_scenes(f"folder:{tmp_path}", "train", 8, 64)
    shapes = [
        (lower - top) / (right - left) for i in range(8) for left, top, right, lower in images.read(i).boxes
    ]
    assert np.median(shapes) == pytest.approx(3 / 4, rel=0.1)


@pytest.mark.parametrize("values", [(0,), (0, IGNORE), (IGNORE,)])
def test_masks_of_background_alone_are_refused(backbone, tmp_path, values):
    data = save_pairs(tmp_path, np.zeros((8, 8, 3), np.uint8), [values])
    Image.fromarray(np.ones((8, 8), np.uint8)).save(
        tmp_path / "masks" / "test" / "0.png"
    )  # so that a class is there
    with pytest.raises(UserError, match="train: has no pixels of a class in its masks"):
        opened(backbone({}), data)


def test_the_test_is_of_the_folder_test_where_there_is_one_for_validation_too(backbone, tmp_path):
    data = save_pairs(tmp_path, np.zeros((8, 8, 3), np.uint8))
    for kind in ("images", "masks"):
        (tmp_path / kind / "val").mkdir()
    Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(tmp_path / "images" / "val" / "v.png")
    Image.fromarray(np.ones((8, 8), np.uint8)).save(tmp_path / "masks" / "val" / "v.png")
    _, test = opened(backbone({}), data)
    assert test.size == 2 and not test.read(0).image.any()


def test_a_backbone_for_gray_images_says_that_colours_are_lost(backbone, tmp_path, caplog):
    data = save_pairs(tmp_path, np.zeros((8, 8, 3), np.uint8))
    with caplog.at_level(logging.WARNING, transfer_images.log.name):
        opened(backbone({}, channels=1), data)
        opened(backbone({}), data)
    assert [record.getMessage().endswith("colours are turned gray") for record in caplog.records] == [True]
