"""Similarities against NumPy (Eq. 1, Sec. 4.5)."""

import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf import losses


@pytest.fixture
def pz():
    rng = np.random.default_rng(0)
    return rng.normal(0, 3, (2, 32, 48)).astype("float32")


def test_negative_cosine_is_eq_1(pz):
    p, z = pz
    dots = [np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b)) for a, b in zip(p, z, strict=True)]
    assert losses.negative_cosine(p, z).numpy() == pytest.approx(-np.mean(dots), abs=1e-6)


def test_negative_cosine_has_its_minimum_where_p_points_along_z(pz):
    p, _ = pz
    assert losses.negative_cosine(p, 7 * p).numpy() == pytest.approx(-1, abs=1e-6)
    assert losses.negative_cosine(p, -0.1 * p).numpy() == pytest.approx(1, abs=1e-6)
    assert losses.negative_cosine([[1.0, 0.0]], [[0.0, 5.0]]).numpy() == 0
    assert losses.negative_cosine([[3.0, 4.0]], [[1.0, 0.0]]).numpy() == pytest.approx(-0.6, abs=1e-7)


def test_cross_entropy_is_that_of_sec_45(pz):
    p, z = (a.astype("float64") for a in pz)
    target = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    log_p = p - np.log(np.exp(p).sum(1, keepdims=True))
    expected = -(target * log_p).sum(1).mean()
    assert expected > 0
    assert losses.cross_entropy(*pz).numpy() == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_by_hand():
    # z → (¾, ¼), p → (½, ½): ln 2; p → (0.9, 0.1): −¾ ln 0.9 − ¼ ln 0.1 = 0.654667
    z = tf.math.log([[3.0, 1.0]])
    assert losses.cross_entropy([[2.0, 2.0]], z).numpy() == pytest.approx(np.log(2), abs=1e-6)
    assert losses.cross_entropy(tf.math.log([[9.0, 1.0]]), z).numpy() == pytest.approx(0.654667, abs=1e-6)
    # Not symmetric: the targets are z.
    swapped = losses.cross_entropy(z, tf.math.log([[9.0, 1.0]])).numpy()
    assert swapped == pytest.approx(-0.9 * np.log(0.75) - 0.1 * np.log(0.25), abs=1e-6)


def test_cross_entropy_is_least_at_p_equal_z_and_stays_finite(pz):
    p, z = pz
    entropy = losses.cross_entropy(z, z).numpy()
    assert 0 <= entropy < losses.cross_entropy(p, z).numpy()
    assert np.isfinite(losses.cross_entropy([[1e4, -1e4]], [[-1e4, 1e4]]).numpy())


@pytest.mark.parametrize("name", list(losses.SIMILARITY))
def test_no_similarity_stops_a_gradient(name, pz):
    p, z = (tf.constant(a) for a in pz)
    with tf.GradientTape() as tape:
        tape.watch([p, z])
        value = losses.SIMILARITY[name](p, z)
    assert all(tf.reduce_max(tf.abs(g)) > 1e-5 for g in tape.gradient(value, [p, z]))
