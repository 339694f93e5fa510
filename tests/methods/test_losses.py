"""Similarities (Eq. 1, Sec. 4.5) and the compared methods' losses against NumPy, number by number."""

from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf.methods import losses


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


def cosine(a, b):
    return np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b))


def test_nt_xent_is_simclrs_sum_over_pairs():
    keys = np.random.default_rng(0).normal(0, 2, (10, 7))  # five images, two views
    own, other = np.arange(10), np.roll(np.arange(10), 5)
    each = []
    for i in own:
        others = sum(np.exp(cosine(keys[i], keys[k]) / 0.2) for k in range(10) if k != i)
        each.append(-np.log(np.exp(cosine(keys[i], keys[other[i]]) / 0.2) / others))
    found = losses.nt_xent(tf.constant(keys), tf.constant(keys), own, other, 0.2)
    assert found.numpy() == pytest.approx(np.mean(each), rel=1e-9)
    some = losses.nt_xent(tf.constant(keys[3:6]), tf.constant(keys), own[3:6], other[3:6], 0.2)
    assert some.numpy() == pytest.approx(np.mean(each[3:6]), rel=1e-9)  # a replica's share


def test_nt_xent_by_hand():
    # keys along x, y, x, y; the positives agree: −ln(e² / (e² + 2 e⁰)) at τ = ½
    keys = tf.constant([[1.0, 0.0], [0.0, 3.0], [2.0, 0.0], [0.0, 1.0]])
    found = losses.nt_xent(keys, keys, [0, 1, 2, 3], [2, 3, 0, 1], 0.5)
    assert found.numpy() == pytest.approx(np.log(1 + 2 * np.exp(-2)), rel=1e-6)


def test_info_nce_is_mocos_softmax_over_the_queue():
    rng = np.random.default_rng(0)
    q, k, queue = (rng.normal(0, 2, (n, 7)) for n in (5, 5, 12))
    each = []
    for a, b in zip(q, k, strict=True):
        alike = np.exp(cosine(a, b) / 0.2)
        each.append(-np.log(alike / (alike + sum(np.exp(cosine(a, c) / 0.2) for c in queue))))
    found = losses.info_nce(tf.constant(q), tf.constant(k), tf.constant(queue), 0.2)
    assert found.numpy() == pytest.approx(np.mean(each), rel=1e-9)


def test_sinkhorn_knopp_is_the_paper_matrix_scaling():
    scores = np.random.default_rng(0).uniform(-1, 1, (8, 3))
    q = np.exp(scores / 0.5).T  # prototypes × images
    q /= q.sum()
    for _ in range(3):
        for row in q:
            row /= row.sum() * 3
        for i in range(8):
            q[:, i] /= q[:, i].sum() * 8
    np.testing.assert_allclose(losses.sinkhorn_knopp(tf.constant(scores), 0.5, 3), 8 * q.T, rtol=1e-9)


def test_sinkhorn_knopp_gives_every_prototype_its_share():
    scores = np.random.default_rng(0).uniform(-1, 1, (12, 4))
    scores[:, 0] += 1  # by itself the first would take nearly all
    codes = losses.sinkhorn_knopp(tf.constant(scores), 0.3, 200).numpy()
    np.testing.assert_allclose(codes.sum(axis=0), 3, rtol=1e-6)
    np.testing.assert_allclose(codes.sum(axis=1), 1, rtol=1e-6)


def test_sinkhorn_knopp_over_replicas_is_that_of_the_whole_batch():
    scores = tf.constant(np.random.default_rng(0).uniform(-1, 1, (8, 3)))

    def halves(sums):
        """Codes of either half, given the sums over both that each is to ask for."""
        return [
            losses.sinkhorn_knopp(half, 0.5, len(sums), sum_replicas=mock.Mock(side_effect=list(sums)))
            for half in (scores[:4], scores[4:])
        ]

    sums = []
    for _ in range(3):
        sums.append(sum(tf.reduce_sum(codes, axis=0) for codes in halves(sums)))
    np.testing.assert_allclose(tf.concat(halves(sums), 0), losses.sinkhorn_knopp(scores, 0.5, 3), rtol=1e-9)


@pytest.mark.parametrize(
    "value",
    [
        lambda a, b: losses.nt_xent(a, tf.concat([a, b], 0), tf.range(4), 4 + tf.range(4), 0.2),
        lambda a, b: losses.info_nce(a, b, tf.concat([b, a], 0), 0.2),
        lambda a, b: tf.reduce_sum(losses.sinkhorn_knopp(a @ tf.transpose(b), 0.5, 3) ** 2),
    ],
    ids=["nt_xent", "info_nce", "sinkhorn_knopp"],
)
def test_no_loss_stops_a_gradient(value):
    pair = [tf.random.stateless_normal([4, 6], [0, i]) for i in range(2)]
    with tf.GradientTape() as tape:
        tape.watch(pair)
        loss = value(*pair)
    assert all(tf.reduce_max(tf.abs(g)) > 1e-4 for g in tape.gradient(loss, pair))
