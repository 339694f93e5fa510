"""Images that a run keeps in memory: what the option decoded_size refuses, and that a run goes on with it."""

import dataclasses

import numpy as np
import pytest
from helpers.runs import StopAt, state, tiny
from PIL import Image

from simsiam_tf.config import PretrainConfig
from simsiam_tf.data import from_images, open_source
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import inspection, pretraining, run_data

CONFIG = PretrainConfig(decoded_size=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(160):
        size = (40 + i % 7, 60 - i % 5)
        Image.fromarray(rng.integers(0, 256, [3, 3, 3], np.uint8)).resize(size).save(folder / f"{i}.png")
    return folder


def test_what_cannot_be_kept_is_refused(folder, monkeypatch):
    with pytest.raises(
        UserError, match=r"decoded_size=32: digits:train is in memory already\. Leave `decoded_size` out"
    ):
        run_data.keep_in_memory(CONFIG, open_source("digits"))
    source = open_source(f"folder:{folder}")
    monkeypatch.setattr(run_data, "physical_memory", lambda: 2 * 160 * 32**2 * 3 - 1)
    with pytest.raises(UserError, match="160 images take 0.0 GiB, more than half .*Pass decoded_size=31 or"):
        run_data.keep_in_memory(CONFIG, source)
    smaller = dataclasses.replace(CONFIG, decoded_size=31)
    assert run_data.keep_in_memory(smaller, source).squares.pixels.shape == (160, 31, 31, 3)


def test_an_image_that_cannot_be_decoded_is_named(tmp_path):
    for i in range(3):
        Image.new("RGB", (40, 40 + i)).save(tmp_path / f"{i}.png")
    source = open_source(f"folder:{tmp_path}", check="header")
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[:60] + b"?" * 20 + whole[80:])
    with pytest.raises(UserError, match=r"1\.png cannot be decoded\. Leave it out of the set"):
        run_data.keep_in_memory(CONFIG, source)


def test_python_images_can_be_kept():
    images = [np.full([20 + i, 30, 3], 9 * i, np.uint8) for i in range(4)]
    kept = run_data.keep_in_memory(CONFIG, from_images(images))
    np.testing.assert_array_equal(kept.squares.pixels[3], np.full([32, 32, 3], 27))


@pytest.mark.parametrize(
    "decoded",
    [["--decoded_size=32"], pytest.param([], marks=pytest.mark.slow)],
    ids=["decoded_size", "sizes"],
)
def test_a_dry_run_keeps_nothing_in_memory_and_says_whether_it_fits(folder, tmp_path, monkeypatch, decoded):
    def fail(*_):
        raise AssertionError("a dry run decodes all images")

    monkeypatch.setattr(run_data, "keep_decoded", fail)
    monkeypatch.setattr(run_data, "keep_squares", fail)
    argv = [f"--data=folder:{folder}", "--image_size=16", "--monitor=none", *decoded]
    assert inspection.dry_run(tiny(tmp_path, *argv)) == 0
    if decoded:
        monkeypatch.setattr(run_data, "physical_memory", lambda: 2**10)
        with pytest.raises(UserError, match="decoded_size=32: 160 images take"):
            inspection.dry_run(tiny(tmp_path, *argv))


@pytest.mark.slow
def test_a_run_goes_on_with_the_same_squares(tmp_path, folder):
    def run(workdir, **more):
        data = [f"--data=folder:{folder}", "--decoded_size=32", "--image_size=16", "--epochs=3"]
        return pretraining.pretrain(tiny(workdir, *data, "--monitor=none"), **more)

    assert run(tmp_path / "whole").status == pretraining.DONE
    assert run(tmp_path / "cut", callbacks=[StopAt(3)]).status == pretraining.INTERRUPTED
    assert run(tmp_path / "cut").status == pretraining.DONE
    assert state(tmp_path / "cut") == state(tmp_path / "whole")
