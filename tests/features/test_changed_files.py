"""Stored features are those of the images' present contents, even of images that change meanwhile."""

import dataclasses
import os
import shutil

import keras
import numpy as np
import pytest
from helpers import small_backbones
from PIL import Image

from simsiam_tf.data import AUGMENTATIONS, open_source
from simsiam_tf.features import changed_files, extract, feature_file, store
from simsiam_tf.pretrained.pretrained_backbone import open_pretrained
from simsiam_tf.runtime.errors import UserError


def photos(root, count=40, seed=0):
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (9, 9, 3), np.uint8)).save(root / f"{i:02}.bmp")
    return root


@pytest.fixture(scope="module")
def colour(tmp_path_factory):
    augmentation = dataclasses.replace(AUGMENTATIONS["cifar"], size=8)
    return open_pretrained(
        str(small_backbones.exported(tmp_path_factory.mktemp("colour"), augmentation, channels=3))
    )


def test_features_depend_on_the_contents_of_files_not_their_names(colour, tmp_path):
    """Replaced under their names, with size and mtime as before; or in another folder of a long path."""
    long = tmp_path / ("a_long_name_of_a_folder_" * 4)
    sets = [photos(long / "train"), photos(long / "test", seed=1)]
    fresh = [extract(colour.backbone, open_source(s), colour.views) for s in sets]
    for root, expected in zip(sets, fresh, strict=True):
        np.testing.assert_allclose(
            store.stored_features(colour, open_source(root), tmp_path), expected, rtol=1e-5
        )
    before = [file.stat() for file in sorted(sets[0].iterdir())]
    photos(sets[0], seed=1)
    for file, status in zip(sorted(sets[0].iterdir()), before, strict=True):
        assert file.stat().st_size == status.st_size
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    np.testing.assert_allclose(
        store.stored_features(colour, open_source(sets[0]), tmp_path), fresh[1], rtol=1e-5
    )
    names = {file.name for file in tmp_path.glob("*.npy")}
    assert len(names) == 3 and max(map(len, names)) < 120


def test_long_names_in_any_script_fit_the_file_system(colour, tmp_path):
    root = photos(tmp_path / ("\u5199\u771f" * 40) / ("\u5199\u771f" * 40), count=3)
    assert store.stored_features(colour, open_source(root), tmp_path).shape == (3, 64)


def test_images_that_change_during_extraction_are_named_and_left_out(colour, tmp_path, monkeypatch):
    root = photos(tmp_path / "images")
    source = open_source(root)
    expected = extract(colour.backbone, source, colour.views)
    monkeypatch.setattr(feature_file, "SYNC_SECONDS", 0.0)
    watch = changed_files.verified_source

    def changing(source, changed):
        (root / "11.bmp").unlink()
        (root / "30.bmp").unlink()
        os.mkfifo(root / "30.bmp")
        photos(tmp_path / "others", seed=1)
        (tmp_path / "others" / "35.bmp").replace(root / "35.bmp")  # good, but another
        with open(root / "38.bmp", "ab") as file:
            file.write(b"more")
        return watch(source, changed)

    with monkeypatch.context() as patch:
        patch.setattr(changed_files, "verified_source", changing)
        with pytest.raises(
            changed_files.ChangedImages, match="4 of 40 images changed or disappeared .* 11.bmp"
        ) as caught:
            store.stored_features(colour, source, tmp_path / "f", batch_size=4)
    assert caught.value.names == ["11.bmp", "30.bmp", "35.bmp", "38.bmp"]
    monkeypatch.setattr(store, "_extract", None)
    others = np.setdiff1d(np.arange(40), [11, 30, 35, 38])
    rows = store.stored_features(colour, caught.value.rest, tmp_path / "f")
    np.testing.assert_allclose(rows, expected[others], rtol=1e-5)
    for name in caught.value.names:
        (root / name).unlink(missing_ok=True)
    rerun = store.stored_features(colour, open_source(root), tmp_path / "f")
    np.testing.assert_array_equal(rerun, rows)
    assert sorted(p.suffix for p in (tmp_path / "f").iterdir()) == [".json", ".npy"]


def test_nothing_is_stored_when_all_images_are_gone(colour, tmp_path):
    source = open_source(photos(tmp_path / "images", 3))
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(UserError, match="all images changed or disappeared"):
        store.stored_features(colour, source, tmp_path / "f")
    assert not list((tmp_path / "f").iterdir())


def test_features_that_are_not_finite_are_refused(colour, tmp_path):
    broken = keras.models.clone_model(colour.backbone)
    broken.set_weights([w * np.float32("nan") for w in colour.backbone.get_weights()])
    source = open_source(photos(tmp_path / "images", 3))
    with pytest.raises(UserError, match="not all finite numbers, such as those of 00.bmp"):
        store.stored_features(dataclasses.replace(colour, backbone=broken), source, tmp_path / "f")
    assert not list((tmp_path / "f").glob("*[0-9a-f].npy"))
