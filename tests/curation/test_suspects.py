"""Suspects equal those of cleanlab, and swapped labels are found."""

import sys

import numpy as np
import pytest

from simsiam_tf.curation import neighbour_graph, suspects, vote_probabilities
from simsiam_tf.curation.suspects import confident_joint
from simsiam_tf.runtime.errors import UserError

suspects_module = sys.modules[confident_joint.__module__]


def noisy_labels(rng, rows, classes, wrong=0.15, sharpness=3.0):
    """Labels, some of them wrong, and probabilities that tend to the true ones."""
    true = rng.integers(classes, size=rows)
    true[:classes] = np.arange(classes)
    logits = rng.standard_normal((rows, classes))
    logits[np.arange(rows), true] += sharpness * rng.random(rows)
    p = np.exp(logits)
    label = np.where(rng.random(rows) < wrong, rng.integers(classes, size=rows), true)
    label[:classes] = np.arange(classes)
    return label, p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("rows, classes", [(400, 2), (500, 7), (300, 40), (60, 12)])
@pytest.mark.parametrize("wrong", [0.0, 0.2, 0.6])
def test_suspects_equal_cleanlabs(rows, classes, wrong):
    filters, rank = pytest.importorskip("cleanlab.filter"), pytest.importorskip("cleanlab.rank")
    count = pytest.importorskip("cleanlab.count")
    label, p = noisy_labels(np.random.default_rng(rows), rows, classes, wrong)
    result = suspects(None, label, probabilities=p)
    joint = count.compute_confident_joint(label, p)
    np.testing.assert_array_equal(confident_joint(label, p), joint)
    mask = filters.find_label_issues(label, p, n_jobs=1)
    np.testing.assert_array_equal(np.sort(result.rows), np.flatnonzero(mask))
    quality = rank.get_label_quality_scores(label, p, method="self_confidence")
    np.testing.assert_allclose(result.quality, quality)
    ranked = filters.find_label_issues(label, p, n_jobs=1, return_indices_ranked_by="self_confidence")
    np.testing.assert_array_equal(result.rows, ranked)


def test_joint_by_hand():
    """Thresholds: class 0 (0.9 + 0.7 + 0.2) / 3 = 0.6, class 1 (0.8 + 0.6) / 2 = 0.7."""
    p = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.2, 0.8], [0.4, 0.6]])
    label = np.array([0, 0, 0, 1, 1])
    np.testing.assert_array_equal(confident_joint(label, p), [[2, 1], [0, 2]])
    result = suspects(None, label, probabilities=p)
    assert (result.rows.tolist(), result.given.tolist(), result.looks_like.tolist()) == ([2], [0], [1])


def test_votes_are_weighted_by_cosine_and_leave_the_row_itself_out():
    x = np.array([[1, 0], [1, 0.1], [1, 0.3], [0, 1], [0.1, 1]])
    label = np.array([0, 1, 1, 0, 0])
    p = vote_probabilities(neighbour_graph(x, 2), label, 2, temperature=0.5).toarray()
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    near, far = np.exp(unit[3] @ unit[4] / 0.5), np.exp(unit[3] @ unit[2] / 0.5)
    np.testing.assert_allclose(p[0], [0, 1])
    np.testing.assert_allclose(p[3], [near / (near + far), far / (near + far)], rtol=1e-5)


def test_sparse_votes_give_what_dense_ones_do_in_a_few_rows_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    label = rng.integers(30, size=600)
    x = np.eye(32)[label] + 0.3 * rng.standard_normal((600, 32))
    label[rng.choice(600, 90, replace=False)] = rng.integers(30, size=90)
    graph = neighbour_graph(x)
    dense = np.zeros((600, 30))
    weight = np.exp((graph.cosine - graph.cosine[:, :1]).astype(float) / 0.1)
    np.add.at(dense, (np.arange(600)[:, None], label[graph.index]), weight)
    dense /= dense.sum(axis=1, keepdims=True)
    votes = vote_probabilities(graph, label, 30)
    assert votes.nnz < 600 * 20
    np.testing.assert_allclose(votes.toarray(), dense, atol=1e-12)
    monkeypatch.setattr(suspects_module, "BLOCK", 30 * 7)
    sparse, same = suspects(None, label, graph), suspects(None, label, probabilities=dense)
    for part in ("rows", "given", "looks_like", "joint"):
        np.testing.assert_array_equal(getattr(sparse, part), getattr(same, part))
    np.testing.assert_allclose(sparse.quality, same.quality, atol=1e-12)
    assert len(sparse.rows) > 30


def test_swapped_labels_are_found_with_the_label_they_look_like():
    rng = np.random.default_rng(0)
    true = rng.integers(5, size=1000)
    x = np.eye(16)[true] + 0.1 * rng.standard_normal((1000, 16))
    names = np.array(["ant", "bee", "cat", "dog", "elk"])
    label = names[true]
    swapped = rng.choice(1000, 50, replace=False)
    label[swapped] = names[(true[swapped] + rng.integers(1, 5, 50)) % 5]
    result = suspects(x, label)
    assert set(result.rows) <= set(swapped) and len(result.rows) >= 45
    np.testing.assert_array_equal(result.looks_like, names[true[result.rows]])
    np.testing.assert_array_equal(result.given, label[result.rows])
    assert len(suspects(x, names[true]).rows) == 0
    assert result.labels_fit and suspects(x, names[true]).labels_fit
    assert not suspects(x, rng.integers(2, size=1000)).labels_fit  # such as years


def test_arguments_are_checked():
    p = np.full((4, 2), 0.5)
    for call, text in (
        (lambda: suspects(np.eye(4), [1, 1, 1, 1]), "are all the same"),
        (lambda: suspects(np.eye(4), [1, 2, 1]), "`labels`: has shape"),
        (lambda: suspects(None, [1, 2, 1, 2]), "both are missing"),
        (lambda: suspects(None, [1, 2, 3, 2], probabilities=p), r"Pass \[4, 3\]"),
        (lambda: suspects(None, [1, 2, 1, 2], probabilities=p * 3), "row 0 is no distribution"),
        (lambda: suspects(None, [1, 2, 1, 2], probabilities=p * np.nan), "row 0 is no distribution"),
    ):
        with pytest.raises(UserError, match=text):
            call()
