"""The probe chooses on held-out training images, and tests once."""

import dataclasses
import json

import numpy as np
import pytest
from helpers import small_backbones

from simsiam_tf import probe as command
from simsiam_tf.data import AUGMENTATIONS, open_source, sampling
from simsiam_tf.evaluate import linear_probe


@pytest.fixture(scope="module")
def digits():
    train, test = (open_source(f"digits:{s}") for s in ("train", "test"))
    flat = lambda s: s.images.reshape(s.size, -1).astype(np.float32)
    return flat(train), train.labels, flat(test), test.labels


def test_logistic_probe_classifies_digits_with_the_best_strength(digits):
    result = linear_probe.logistic_probe(*digits, strengths=(1e-6, 0.1))
    assert result.test > 0.95 and result.chosen == 0.1 and result.converged
    assert result.validation[0.1] > result.validation[1e-6] + 0.02


def test_the_choice_does_not_depend_on_the_test_images(digits):
    features, labels, test, truth = digits
    one = linear_probe.logistic_probe(features, labels, test, truth, strengths=(1e-3, 1.0))
    other = linear_probe.logistic_probe(features, labels, test[::-1], truth, strengths=(1e-3, 1.0))
    assert one.validation == other.validation and one.chosen == other.chosen and one.test != other.test


def test_the_sweep_ends_after_two_worse_strengths(digits, monkeypatch):
    class FixedAccuracies:
        def __init__(self, *_):
            pass

        def fit(self, strength):
            self.strength = strength
            return True

        def accuracy(self, *_):
            return {1: 0.5, 2: 0.7, 3: 0.6, 4: 0.65, 5: 0.9}[self.strength]

    monkeypatch.setattr(linear_probe, "_Regression", FixedAccuracies)
    result = linear_probe.logistic_probe(*digits, strengths=(5, 4, 3, 2, 1))
    assert list(result.validation) == [1, 2, 3, 4] and result.chosen == 2 and result.test == 0.7


@pytest.mark.slow
def test_warm_starts_do_not_change_the_result(digits):
    alone, after = (linear_probe.logistic_probe(*digits, strengths=s) for s in ((0.1,), (1e-3, 0.1)))
    assert after.validation[0.1] == pytest.approx(alone.validation[0.1], abs=0.005)
    assert after.test == alone.test


def test_scale_of_all_and_shift_of_a_feature_do_not_matter(digits):
    features, labels, test, truth = digits
    shift = np.linspace(-9, 9, features.shape[1], dtype=np.float32)
    a = linear_probe.logistic_probe(features, labels, test, truth, strengths=(0.1,))
    for scale in (1e-3, 1e3):
        moved, test_moved = features * scale + shift * scale, test * scale + shift * scale
        b = linear_probe.logistic_probe(moved, labels, test_moved, truth, strengths=(0.1,))
        assert abs(a.test - b.test) < 0.005


def test_features_that_hold_but_rounding_do_not_count(digits):
    """Whitened features of few images end in such; divided by their own deviation they hid others."""
    features, labels, test, truth = (part[:150] for part in digits)
    rng = np.random.default_rng(0)

    def widened(rows):
        return np.concatenate([rows, 1e-15 * rng.normal(size=(len(rows), 500))], axis=1)

    strengths = (1e-3, 1e-2, 0.1, 1.0)
    a = linear_probe.logistic_probe(features, labels, test, truth, strengths)
    b = linear_probe.logistic_probe(widened(features), labels, widened(test), truth, strengths)
    assert a.test > 0.8 and b.test > a.test - 0.03


def test_the_command(tmp_path, capsys):
    grey = dataclasses.replace(AUGMENTATIONS["grayscale"], size=8)
    folder = small_backbones.exported(tmp_path / "run", grey, channels=1)
    assert command.main([f"--weights={folder}", "--labels=0.1", "--strengths=0.01,1"]) == 0
    result = json.loads((folder / "probe.json").read_text())
    assert result["images"][0] == pytest.approx(144, abs=5) and result["images"][1] == 360
    assert result["accuracy"]["raw pixels"]["test"] > 0.8
    assert set(result["sweep"]["this backbone"]["validation"]) == {"0.01", "1.0"}
    assert "raw pixels" in capsys.readouterr().out
    for wrong in (
        "--labels=0",
        "--labels=2",
        "--strengths=a",
        "--strengths=0",
        "--strengths=nan",
        "--epochs=inf",
        "--labels=0.005",
    ):
        assert command.main([f"--weights={folder}", wrong]) == 2
    assert "10 labelled training images: too few" in capsys.readouterr().err


def test_heads_by_sgd_equal_a_numpy_reference_on_the_same_batches(digits):
    features, labels, _, _ = digits
    features = features / 16
    ids = np.arange(300)[::-1]
    (head,) = linear_probe.train_heads(features, labels, ids, [0.5], "sgd", epochs=3, seed=4)
    w = np.random.default_rng(4).normal(0, 0.01, (64, 10)).astype(np.float32).astype(np.float64)
    b, mw, mb = np.zeros(10), 0.0, 0.0
    for step in range(3):  # 900 // 256
        rows = ids[sampling.example_ids(4, step, 256, 300).numpy()]
        x, y = features[rows].astype(np.float64), np.eye(10)[labels[rows]]
        p = np.exp(x @ w + b)
        d = (p / p.sum(axis=1, keepdims=True) - y) / 256
        lr = 0.5 * 0.5 * (1 + np.cos(np.pi * step / 3))
        mw, mb = 0.9 * mw + x.T @ d, 0.9 * mb + d.sum(axis=0)
        w, b = w - lr * mw, b - lr * mb
    np.testing.assert_allclose(head.kernel, w, atol=1e-5)
    np.testing.assert_allclose(head.bias, b, atol=1e-5)


@pytest.mark.parametrize("kind", ["sgd", "lars"])
def test_a_head_is_the_same_alone_and_among_others(digits, kind):
    features, labels, _, _ = digits
    rates = [0.1, *np.linspace(1, 2, 11)]
    among = linear_probe.train_heads(features / 16, labels, np.arange(512), rates, kind, epochs=2)
    for i in (0, 1, 11):
        (alone,) = linear_probe.train_heads(features / 16, labels, np.arange(512), [rates[i]], kind, epochs=2)
        np.testing.assert_allclose(among[i].kernel, alone.kernel, atol=1e-6)
    assert abs(among[1].kernel - among[11].kernel).max() > 1e-4


@pytest.mark.parametrize("kind", ["sgd", "lars"])
def test_sgd_probe_classifies_digits_with_the_best_rate(digits, kind):
    features, labels, test, truth = digits
    result = linear_probe.sgd_probe(
        features / 16, labels, test / 16, truth, kind, rates=(1e-6, 1.0), epochs=60
    )
    assert result.test > 0.88 and result.chosen == 1.0 and result.validation[1.0] > result.validation[1e-6]


def test_accuracy_of_a_head_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(50, 4)).astype(np.float32), rng.integers(3, size=50)
    head = linear_probe.LinearHead(rng.normal(size=(4, 3)), rng.normal(size=3))
    by_hand = np.mean(
        [np.argmax(row @ head.kernel + head.bias) == y for row, y in zip(x, labels, strict=True)]
    )
    monkeypatch.setattr(linear_probe, "BLOCK", 7)
    assert head.accuracy(x, labels) == pytest.approx(by_hand)
    assert head.accuracy(x, labels, np.arange(50)[::2]) == pytest.approx(
        np.mean((x[::2] @ head.kernel + head.bias).argmax(axis=1) == labels[::2])
    )


@pytest.mark.slow
def test_the_command_with_lars(tmp_path):
    grey = dataclasses.replace(AUGMENTATIONS["grayscale"], size=8)
    folder = small_backbones.exported(tmp_path / "run", grey, channels=1)
    argv = [f"--weights={folder}", "--classifier=lars", "--epochs=2"]
    assert command.main([*argv, "--base_lrs=1,10"]) == 0
    result = json.loads((folder / "probe-lars.json").read_text())
    assert set(result["sweep"]["raw pixels"]["validation"]) == {"1.0", "10.0"}
    for wrong in ("--base_lrs=a", "--base_lrs=0", "--epochs=0", "--strengths=1,2", "--classifier=adam"):
        assert command.main([*argv, wrong]) == 2
