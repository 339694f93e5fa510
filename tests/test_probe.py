"""The probe chooses on held-out training images, and scores the test images once."""

import dataclasses
import json

import backbones
import numpy as np
import pytest

from simsiam_tf import probe as command
from simsiam_tf.data import RECIPES, open_source
from simsiam_tf.evaluate import probe


@pytest.fixture(scope="module")
def digits():
    train, test = (open_source(f"digits:{s}") for s in ("train", "test"))
    flat = lambda s: s.images.reshape(s.size, -1).astype(np.float32)
    return flat(train), train.labels, flat(test), test.labels


def test_digits_are_told_apart_and_the_choice_is_the_best_of_the_sweep(digits):
    found = probe.logistic(*digits, strengths=(1e-6, 0.1))
    assert found.test > 0.95 and found.chosen == 0.1 and found.converged
    assert found.validation[0.1] > found.validation[1e-6] + 0.02


def test_the_test_images_have_no_say_in_the_choice(digits):
    features, labels, test, truth = digits
    one = probe.logistic(features, labels, test, truth, strengths=(1e-3, 1.0))
    other = probe.logistic(features, labels, test[::-1], truth, strengths=(1e-3, 1.0))
    assert one.validation == other.validation and one.chosen == other.chosen and one.test != other.test


def test_scale_and_shift_of_a_feature_do_not_matter(digits):
    features, labels, test, truth = digits
    scale = np.linspace(0.1, 30, features.shape[1], dtype=np.float32)
    a = probe.logistic(features, labels, test, truth, strengths=(0.1,))
    b = probe.logistic(features * scale + 5, labels, test * scale + 5, truth, strengths=(0.1,))
    assert abs(a.test - b.test) < 0.005


def test_the_command(tmp_path, capsys):
    grey = dataclasses.replace(RECIPES["grayscale"], size=8)
    folder = backbones.exported(tmp_path / "run", grey, channels=1)
    assert command.main([f"--weights={folder}", "--labels=0.1", "--strengths=0.01,1"]) == 0
    result = json.loads((folder / "probe.json").read_text())
    assert result["images"][0] == pytest.approx(144, abs=5) and result["images"][1] == 360
    assert result["accuracy"]["raw pixels"]["test"] > 0.8
    assert set(result["sweep"]["this backbone"]["validation"]) == {"0.01", "1.0"}
    assert "raw pixels" in capsys.readouterr().out
    for wrong in ("--labels=0", "--labels=2", "--strengths=a", "--strengths=0"):
        assert command.main([f"--weights={folder}", wrong]) == 2
