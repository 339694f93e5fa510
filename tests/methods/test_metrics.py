"""Collapse measures at points where the answer is known."""

import numpy as np
import pytest

from simsiam_tf.methods import metrics


@pytest.mark.parametrize("d", [16, 256])
def test_collapse_std_is_one_for_a_gaussian_at_any_width(d):
    z = np.random.default_rng(0).normal(0, 5, (4096, d))
    assert metrics.collapse_std(z).numpy() == pytest.approx(1, abs=0.02)


def test_collapse_std_is_zero_for_one_point_at_any_length():
    direction = np.random.default_rng(0).normal(size=(1, 64))
    lengths = np.linspace(0.1, 9, 32)[:, None]
    assert metrics.collapse_std(lengths * direction).numpy() < 1e-5


def test_collapse_std_by_hand():
    # Normalised: (1, 0), (0, 1): std ½ in either channel, times √2.
    assert metrics.collapse_std([[2.0, 0.0], [0.0, 7.0]]).numpy() == pytest.approx(np.sqrt(0.5), abs=1e-6)


@pytest.mark.parametrize("k", [1, 2, 5, 12])
@pytest.mark.parametrize("d", [16, 200], ids=["B above d", "B below d"])
def test_effective_rank_counts_orthogonal_directions(k, d):
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(d, k)))[0].T
    z = np.concatenate([axes, -axes] * (24 // k))
    assert (len(z) > d) == (d == 16)
    assert metrics.effective_rank(3 * z) == pytest.approx(k, rel=1e-6)


def test_effective_rank_is_one_for_a_point_or_a_line():
    point = np.full((20, 8), 0.3, np.float32)
    assert metrics.effective_rank(point) == 1
    line = np.outer([1, -1] * 10, np.arange(1.0, 9))
    assert metrics.effective_rank(line) == pytest.approx(1)
    assert metrics.effective_rank(np.zeros((20, 8))) == 1


def test_effective_rank_weighs_directions_by_their_variance():
    # ±e1 nine times as often as ±e2: shares 0.9 and 0.1.
    z = np.array([[1, 0], [-1, 0]] * 9 + [[0, 1], [0, -1]], float)
    entropy = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    assert metrics.effective_rank(z) == pytest.approx(np.exp(entropy), rel=1e-6)


def test_effective_rank_has_no_more_than_b_minus_1_and_d():
    rng = np.random.default_rng(0)
    assert metrics.effective_rank(rng.normal(size=(10, 500))) <= 9 + 1e-6
    assert 7 < metrics.effective_rank(rng.normal(size=(5000, 8))) <= 8 + 1e-6
    assert metrics.effective_rank(np.full((4, 4), np.nan)) == 1
