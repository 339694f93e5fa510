"""Losses of detection and segmentation against their formulas in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf.dense_tasks import dense_losses
from simsiam_tf.dense_tasks.annotations import IGNORE

CLASSES = np.array([[0, 2, -1, -2, -1], [-1, -1, -1, -2, -2]], np.int32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_focal_loss_is_that_of_the_paper():
    logits = np.random.default_rng(0).normal(0, 3, (2, 5, 3))
    expected = []
    for image, classes in zip(logits, CLASSES, strict=True):
        total = 0.0
        for anchor, label in zip(image, classes, strict=True):
            for k, logit in enumerate(anchor):
                p, is_it = sigmoid(logit), label == k
                p_t, alpha_t = (p, 0.25) if is_it else (1 - p, 0.75)
                total += -alpha_t * (1 - p_t) ** 2 * np.log(p_t) if label != -2 else 0.0
        expected.append(total / max(1, (classes >= 0).sum()))
    ours = dense_losses.focal(tf.constant(logits, tf.float32), tf.constant(CLASSES))
    assert float(ours) == pytest.approx(np.mean(expected), rel=1e-5)


def test_smooth_l1_counts_anchors_on_objects_alone():
    rng = np.random.default_rng(1)
    codes, truth = rng.normal(size=(2, 2, 5, 4))
    truth[0, 0] = codes[0, 0] + [0.05, -0.05, 0.0, 0.3]
    errors = np.abs(codes - truth)
    each = np.where(errors < 0.1, 5 * errors**2, errors - 0.05)
    expected = each[0, :2].sum() / 2 / 2  # two anchors on objects; the other image has none
    ours = dense_losses.smooth_l1(*(tf.constant(x, tf.float32) for x in (codes, truth)), tf.constant(CLASSES))
    assert float(ours) == pytest.approx(expected, rel=1e-5)


def test_codes_of_anchors_on_no_object_do_not_matter():
    """The code of a box without a width is infinite."""
    codes, truth = tf.Variable(tf.ones([2, 5, 4])), np.zeros((2, 5, 4), np.float32)
    truth[CLASSES < 0] = -np.inf
    with tf.GradientTape() as tape:
        loss = dense_losses.smooth_l1(codes, tf.constant(truth), tf.constant(CLASSES))
    gradient = tape.gradient(loss, codes).numpy()
    assert np.isfinite(loss) and np.isfinite(gradient).all()
    assert ((gradient != 0).any(axis=-1) == (CLASSES >= 0)).all()


def test_hits_are_a_share_of_the_anchors_on_objects():
    """And the second image, without objects, does not count."""
    logits = np.full((2, 5, 3), -1.0)
    logits[0, 0, 0] = logits[0, 1, 1] = logits[0, 2, 0] = 3.0
    np.testing.assert_allclose(
        dense_losses.hits(tf.constant(logits, tf.float32), tf.constant(CLASSES)), [[0.5, 1], [0, 0]]
    )


def test_pixel_losses_leave_out_what_has_no_truth():
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(2, 3, 3, 4))
    mask = rng.integers(0, 4, (2, 3, 3)).astype(np.uint8)
    mask[0, 0], mask[1] = IGNORE, IGNORE
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    known = [(0, i, j) for i in (1, 2) for j in range(3)]
    entropy = np.mean([-np.log(p[at][mask[at]]) for at in known])
    accuracy = np.mean([p[at].argmax() == mask[at] for at in known])
    x, y = tf.constant(logits, tf.float32), tf.constant(mask)
    assert float(dense_losses.pixel_cross_entropy(x, y)) == pytest.approx(entropy / 2, rel=1e-5)
    np.testing.assert_allclose(dense_losses.pixel_accuracy(x, y), [[accuracy, 1], [0, 0]], rtol=1e-6)


def test_gradients_are_finite_for_sure_logits():
    logits = tf.Variable([[[60.0, -60.0], [-60.0, 60.0]]])
    with tf.GradientTape() as tape:
        loss = dense_losses.focal(logits, tf.constant([[1, -1]]))
    assert np.isfinite(loss) and np.isfinite(tape.gradient(loss, logits)).all()
