"""Measures of spectra equal their formulas on spectra that are known."""

import math

import numpy as np
import pytest

from simsiam_tf.evaluate import spectra


def with_singular_values(values, rows=40, columns=12, seed=0):
    """[rows, columns], whose singular values these are."""
    rng = np.random.default_rng(seed)
    u = np.linalg.qr(rng.normal(size=(rows, len(values))))[0]
    v = np.linalg.qr(rng.normal(size=(columns, len(values))))[0]
    return u @ np.diag(values) @ v.T


@pytest.mark.parametrize(("rows", "columns"), [(40, 12), (12, 40)])
def test_rankme_is_the_entropy_of_singular_values(rows, columns):
    values = np.array([4.0, 2, 1, 1])
    p = values / 8
    expected = math.exp(-(p * np.log(p)).sum())  # 2^1.75
    assert expected == pytest.approx(2**1.75)
    x = with_singular_values(values, rows, columns)
    assert spectra.rankme(x) == pytest.approx(expected, rel=1e-4)
    assert spectra.rankme(with_singular_values([3.0] * 12, rows, columns)) == pytest.approx(12, rel=1e-4)
    noise = np.random.default_rng(1).normal(size=(rows, columns))
    p = np.linalg.svd(noise)[1]
    p = p / p.sum() + 1e-7
    assert spectra.rankme(noise) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-6)


def test_rankme_of_the_same_or_no_features_is_one():
    assert spectra.rankme(np.ones([9, 4])) == pytest.approx(1, abs=1e-3)
    assert spectra.rankme(np.zeros([9, 4])) == spectra.rankme(np.full([9, 4], np.nan)) == 1


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_alpha_is_the_exponent_of_the_spectrum(alpha):
    steps = np.arange(1, 11) ** (-alpha / 2)  # singular values: roots of eigenvalues
    x = with_singular_values(steps)
    x -= x.mean(axis=0)
    x = np.linalg.svd(x, full_matrices=False)
    centred = x[0] @ np.diag([*steps, 0, 0]) @ x[2]  # columns of U stay centred, so the covariance is known
    assert spectra.alpha_req(centred + 7) == pytest.approx(alpha, rel=1e-6)
    assert math.isnan(spectra.alpha_req(np.ones([9, 4])))


def test_lidar_is_the_rank_of_between_by_within():
    """Images differ by 3 in direction 0 and by 1 in direction 1; views by 1 and by 1/3: λ = 9 : 9 → 2."""
    between, within = np.diag([3.0, 1.0]), np.diag([1.0, 1 / 3])
    corners = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], float)
    images = np.repeat(corners, 4, axis=0) @ between
    moves = np.tile(corners, (4, 1)) @ within
    views = np.stack([images + moves, images - moves], axis=1)
    assert spectra.lidar(views, shrinkage=1e-9) == pytest.approx(2, rel=1e-4)
    # With equal moves: λ = 9 : 1, p = 0.9 and 0.1.
    moves = np.tile(corners, (4, 1))
    views = np.stack([images + moves, images - moves], axis=1)
    expected = math.exp(-0.9 * math.log(0.9) - 0.1 * math.log(0.1))
    assert spectra.lidar(views, shrinkage=1e-9) == pytest.approx(expected, rel=1e-4)


def test_lidar_does_not_depend_on_the_axes_of_the_features():
    rng = np.random.default_rng(0)
    views = rng.normal(size=(50, 1, 6)) + 0.3 * rng.normal(size=(50, 3, 6))
    turned = views @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert spectra.lidar(turned) == pytest.approx(spectra.lidar(views), rel=1e-6)
    assert spectra.lidar(np.ones([5, 2, 3])) == 1
