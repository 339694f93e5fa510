"""Confusion matrix, mean IoU and pixel accuracy against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from simsiam_tf.dense_tasks.annotations import IGNORE
from simsiam_tf.dense_tasks.segmentation_metrics import confusion, scores

CLASSES = 7


def masks(seed):
    """A truth with ignored pixels, and a prediction; class 5 is only predicted, class 6 in neither."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(5, 20)), int(rng.integers(5, 20)))
    true, predicted = rng.integers(0, 5, shape), rng.integers(0, 6, shape)
    predicted = np.where(rng.random(shape) < 0.6, true, predicted)
    true[rng.random(shape) < 0.2] = IGNORE
    return true.astype(np.uint8), predicted.astype(np.uint8)


def test_confusion_is_scikit_learns_without_ignored_pixels():
    true, predicted = masks(0)
    expected = confusion_matrix(true[true != IGNORE], predicted[true != IGNORE], labels=range(CLASSES))
    computed = confusion(true, predicted, CLASSES)
    assert computed.dtype == np.int64 and computed.tolist() == expected.tolist()


def test_scores_of_several_images_are_scikit_learns_of_all_pixels():
    pairs = [masks(seed) for seed in range(4)]
    computed = scores(sum(confusion(true, predicted, CLASSES) for true, predicted in pairs))
    true, predicted = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
    true, predicted = true[true != IGNORE], predicted[true != IGNORE]
    assert computed["mIoU"] == pytest.approx(jaccard_score(true, predicted, average="macro"), abs=1e-12)
    assert computed["pixel accuracy"] == pytest.approx(accuracy_score(true, predicted), abs=1e-12)
    assert 0.2 < computed["mIoU"] < computed["pixel accuracy"] < 0.9


def test_255_classes_do_not_overflow():
    """uint8 values times the number of classes do not fit into uint8."""
    true, predicted = np.array([[200, 3]], np.uint8), np.array([[250, 3]], np.uint8)
    assert np.argwhere(confusion(true, predicted, 255)).tolist() == [[3, 3], [200, 250]]


@pytest.mark.filterwarnings("error")
def test_without_pixels_the_scores_are_nan():
    nothing = np.full((2, 3), IGNORE, np.uint8)
    assert all(map(math.isnan, scores(confusion(nothing, np.zeros_like(nothing), 3)).values()))


def test_values_that_are_no_class_and_other_shapes_are_refused():
    zeros, threes = np.zeros((2, 2), np.uint8), np.full((2, 2), 3, np.uint8)
    with pytest.raises(ValueError, match=r"prediction must be in 0 … 2\. Received: 3 … 3"):
        confusion(zeros, threes, 3)
    with pytest.raises(ValueError, match=r"truth must be in 0 … 2\. Received: 3 … 3"):
        confusion(threes, zeros, 3)
    with pytest.raises(ValueError, match=r"prediction must be .* Received: 255 … 255"):
        confusion(zeros, np.full((2, 2), IGNORE, np.uint8), 3)
    with pytest.raises(ValueError, match=r"same shape\. Received: truth \(2, 2\), prediction \(4, 1\)"):
        confusion(zeros, np.zeros((4, 1), np.uint8), 3)
