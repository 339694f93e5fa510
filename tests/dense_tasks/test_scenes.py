"""Scenes are functions of their ids, and their boxes and masks are those of what was pasted."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from simsiam_tf.data import from_arrays
from simsiam_tf.dense_tasks import scenes
from simsiam_tf.dense_tasks.scenes import Scenes, open_scenes
from simsiam_tf.evaluate.label_splits import Splits
from simsiam_tf.runtime.errors import UserError

RED, BLUE = (250, 0, 0), (0, 0, 250)


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    """A folder of red discs and blue squares on transparency."""
    root = tmp_path_factory.mktemp("discs")
    y, x = np.mgrid[:40, :40]
    for name, colour, inside in (
        ("disc", RED, (x - 20) ** 2 + (y - 20) ** 2 < 150), ("square", BLUE, (x > 9) & (y > 15)),
    ):  # fmt: skip
        (root / name).mkdir()
        pixels = np.zeros((40, 40, 4), np.uint8)
        pixels[inside] = (*colour, 255)
        for i in range(10):
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return f"folder:{root}"


def test_boxes_and_masks_are_those_of_the_objects(discs):
    images = open_scenes(discs, "train", 20, 96)
    assert images.class_names == ("disc", "square") and images.size == 20
    seen = 0
    for i in range(images.size):
        scene = images.read(i)
        assert scene.image.shape == (96, 96, 3) and len(scene.boxes) == len(scene.labels) <= 5
        pure = {
            label: (np.abs(scene.image.astype(int) - colour).max(axis=-1) < 3)
            for label, colour in enumerate((RED, BLUE))
        }
        for label, region in pure.items():
            assert (scene.mask[region] == 1 + label).all()
        assert not scene.ignored.any()
        for box, label in zip(scene.boxes.astype(int), scene.labels, strict=True):
            left, top, right, lower = box
            inside = scene.mask[top:lower, left:right] == 1 + label
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
            seen += 1
        covered = np.zeros((96, 96), bool)
        for left, top, right, lower in scene.boxes.astype(int):
            covered[top:lower, left:right] = True
        assert not scene.mask[~covered].any()
    assert seen > 30


def test_a_scene_is_a_function_of_its_id_and_splits_share_no_picture(discs):
    train, again, test = (open_scenes(discs, split, 8, 64) for split in ("train", "train", "test"))
    for a, b in zip(dataclasses.astuple(train.read(3)), dataclasses.astuple(again.read(3)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(train.read(3).image, train.read(4).image)
    assert not np.array_equal(train.read(3).image, test.read(3).image)
    assert train.source.size == 18 and test.source.size == 2
    assert not {*train.source.names} & {*test.source.names}
    assert train.fingerprint == again.fingerprint != test.fingerprint
    assert open_scenes(discs, "train", 9, 64).fingerprint != train.fingerprint


def test_as_many_scenes_are_kept_as_fit(discs, monkeypatch):
    made, texture = [], scenes._texture
    monkeypatch.setattr(scenes, "_texture", lambda *args: made.append(1) or texture(*args))
    monkeypatch.setattr(scenes, "KEPT_BYTES", 3 * 64 * 64 * 4)
    images = open_scenes(discs, "train", 5, 64)
    first, again = ([dataclasses.astuple(images.read(i)) for i in range(5)] for _ in range(2))
    assert len(made) == 5 + 2
    for a, b in zip(first, again, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


def test_gray_pictures_are_cut_out_of_black():
    images = np.zeros((2, 28, 28), np.uint8)
    images[:, 5:20, 8:12] = 200
    scene = Scenes("gray", 4, ("a", "b"), "", from_arrays("gray", images, [1, 1]), 64).read(0)
    for left, top, right, lower in scene.boxes:
        assert (lower - top) / (right - left) == pytest.approx(15 / 4, rel=0.25)
    assert set(np.unique(scene.mask)) == {0, 2}


def test_files_of_gray_pictures_are_cut_out_too(tmp_path):
    pixels = np.zeros((28, 28), np.uint8)
    pixels[5:20, 8:12] = 200
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for i in range(10):
        Image.fromarray(pixels).save(tmp_path / "a" / f"{i}.png")
        Image.fromarray(np.full((9, 9, 3), (0, 0, 20 + i), np.uint8)).save(tmp_path / "b" / f"{i}.png")
    images = open_scenes(f"folder:{tmp_path}", "train", 20, 64)
    seen = {0: [], 1: []}
    for i in range(20):
        scene = images.read(i)
        for (left, top, right, lower), label in zip(scene.boxes, scene.labels, strict=True):
            seen[label].append((lower - top) / (right - left))
    assert np.median(seen[0]) == pytest.approx(15 / 4, rel=0.1)  # not a square
    assert np.median(seen[1]) == pytest.approx(1, rel=0.1)  # dark, but coloured and opaque


def test_other_labels_are_other_scenes_and_too_many_classes_are_refused(monkeypatch):
    images = np.zeros((20, 8, 8, 3), np.uint8)
    fingerprints = set()
    for classes in (2, 4, 256):
        source = from_arrays("made", images, np.arange(20) % classes, [f"c{k}" for k in range(classes)])
        monkeypatch.setattr(scenes, "open_splits", lambda *_, s=source, n=classes, **__: Splits(s, s, n))
        fingerprints.add(open_scenes("made", "train", 8, 32).fingerprint)
    assert len(fingerprints) == 3
    with pytest.raises(UserError, match="has 256 classes, a mask room for 254"):
        open_scenes("made", "train", 8, 32, for_masks=True)


def test_masks_count_the_background_as_a_class(discs):
    assert open_scenes(discs, "train", 10, 64, for_masks=True).class_names == ("background", "disc", "square")


@pytest.mark.parametrize(("hidden", "has_room"), [(29, True), (31, False)])
def test_a_place_is_free_where_at_most_three_tenths_are_hidden(hidden, has_room):
    owners = np.zeros((10, 10), np.int64)
    owners[:, :] = 1  # one object of 100 pixels
    opaque = np.zeros((10, 10), bool)
    opaque.ravel()[:hidden] = True
    place = scenes._free_place(owners, opaque, np.random.default_rng(0))
    assert (place is not None) == has_room
