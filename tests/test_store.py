"""Features on disk: made once, for what they depend on, and taken up where they were left."""

import dataclasses

import backbones
import numpy as np
import pytest

from simsiam_tf.data import RECIPES, open_source, subset
from simsiam_tf.errors import UserError
from simsiam_tf.evaluate import extract, store
from simsiam_tf.pretrained import open_pretrained

RECIPE = dataclasses.replace(RECIPES["grayscale"], size=8)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return open_pretrained(str(backbones.exported(tmp_path_factory.mktemp("run"), RECIPE, channels=1)))


@pytest.fixture(scope="module")
def images():
    return subset(open_source("digits"), np.arange(200))


def test_they_are_those_that_extract_gives(known, images, tmp_path):
    rows = store.stored(known, images, tmp_path, batch_size=64)
    assert isinstance(rows, np.memmap) and rows.dtype == np.float32
    np.testing.assert_array_equal(rows, extract(known.backbone, images, known.views, batch_size=64))
    assert [p.suffixes for p in tmp_path.iterdir()] == [[".npy"]]


def test_they_are_made_once(known, images, tmp_path, monkeypatch):
    store.stored(known, images, tmp_path)
    monkeypatch.setattr(store, "_extract", None)
    store.stored(known, images, tmp_path)
    with pytest.raises(TypeError):  # other images
        store.stored(known, subset(images, np.arange(199)), tmp_path)
    with pytest.raises(TypeError):  # another size of them
        store.stored(dataclasses.replace(known, recipe=RECIPES["grayscale"]), images, tmp_path)
    with pytest.raises(TypeError):  # other weights
        store.stored(dataclasses.replace(known, sha256="0" * 64), images, tmp_path)


def test_an_extraction_that_was_ended_goes_on(known, images, tmp_path, monkeypatch):
    whole = np.array(store.stored(known, images, tmp_path / "whole", batch_size=32))
    monkeypatch.setattr(store, "SYNC_SECONDS", 0.0)
    encode, calls = store.forward(known.backbone), []

    def failing(_):
        def three(x):
            calls.append(len(x))
            if len(calls) == 4:
                raise KeyboardInterrupt
            return encode(x)

        return three

    with monkeypatch.context() as broken:
        broken.setattr(store, "forward", failing)
        with pytest.raises(KeyboardInterrupt):
            store.stored(known, images, tmp_path / "ended", batch_size=32)
        calls[:] = [0] * 10
        rows = store.stored(known, images, tmp_path / "ended", batch_size=32)
        assert sum(calls) == 200 - 3 * 32
    np.testing.assert_array_equal(rows, whole)


def test_a_damaged_file_is_made_anew(known, images, tmp_path):
    rows = np.array(store.stored(known, images, tmp_path))
    file = next(tmp_path.iterdir())
    file.write_bytes(file.read_bytes()[:-10])
    np.testing.assert_array_equal(store.stored(known, images, tmp_path), rows)
    np.save(file, np.array([{}]), allow_pickle=True)
    np.testing.assert_array_equal(store.stored(known, images, tmp_path), rows)


def test_a_folder_that_cannot_be_written_is_named(known, images, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="--features_dir=.*taken: cannot be written"):
        store.stored(known, images, tmp_path / "taken")
