"""Weighted kNN against a slow loop."""

import subprocess
import sys

import numpy as np
import pytest

from simsiam_tf.evaluate.knn_monitor import epochs_between
from simsiam_tf.features import gpu_search, knn, knn_accuracy
from simsiam_tf.features.knn import nearest


def slow(bank, labels, queries, truth, k, temperature):
    bank = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    right = 0
    for q, t in zip(queries, truth, strict=True):
        similarity = bank @ (q / np.linalg.norm(q))
        votes = dict.fromkeys(range(10), 0.0)
        for i in np.argsort(-similarity)[:k]:
            votes[int(labels[i])] += np.exp(similarity[i] / temperature)
        right += max(votes, key=votes.get) == t
    return right / len(queries)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (5, 0.1), (20, 0.1), (20, 0.02)])
def test_knn_accuracy_agrees_with_its_definition(k, temperature):
    rng = np.random.default_rng(k)
    labels, truth = rng.integers(0, 4, 300), rng.integers(0, 4, 90)
    centres = rng.normal(size=(4, 16))
    bank = centres[labels] + 1.6 * rng.normal(size=(300, 16))
    queries = centres[truth] + 1.6 * rng.normal(size=(90, 16))
    found = knn_accuracy(bank, labels, queries, truth, ks=(k,), temperature=temperature, block=40)[k]
    assert found == slow(bank, labels, queries, truth, k, temperature)
    several = knn_accuracy(bank, labels, queries, truth, ks=(k, 60), temperature=temperature)
    assert several == {k: found, 60: slow(bank, labels, queries, truth, 60, temperature)}
    assert 0.3 < found < 1.0  # neither chance nor trivial


def leave_one_out(bank, labels, rows, **options):
    return knn_accuracy(bank, labels, bank[rows], labels[rows], query_rows=rows, **options)


def test_leave_one_out_is_knn_on_the_other_rows():
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, 80)
    bank = rng.normal(size=(3, 6))[labels] + rng.normal(size=(80, 6))
    bank[70:] = bank[7]  # equals, of which a row may not find itself
    rows = np.array([2, 7, 40, 71, 79])
    found = leave_one_out(bank, labels, rows, ks=(1, 4), block=2)
    for k in (1, 4):
        alone = [
            knn_accuracy(np.delete(bank, r, 0), np.delete(labels, r), bank[[r]], labels[[r]], ks=(k,))[k]
            for r in rows[[0, 2]]
        ]
        of_two = leave_one_out(bank, labels, rows[[0, 2]], ks=(k,))[k]
        assert of_two == np.mean(alone)
    assert leave_one_out(bank, np.arange(80), rows, ks=(1,)) == {1: 0.0}  # nobody has its label
    assert 0 < found[4] < 1


def test_more_neighbours_than_images_takes_all_of_them():
    bank = np.eye(3, dtype=np.float32)
    assert knn_accuracy(bank, np.arange(3), bank, np.arange(3), ks=(20,)) == {20: 1.0}


@pytest.mark.parametrize(
    ("monitored", "trained", "epochs"),
    [(12_000, 2 * 60_000, 5), (12_000, 2 * 1_281_167, 1), (1797, 2 * 1797, 25)],
)
def test_the_monitor_keeps_within_its_share_of_the_time(monitored, trained, epochs):
    assert epochs_between(monitored, trained) == epochs
    assert monitored / (2 * trained * epochs) <= 0.01


def test_nearest_in_blocks_is_nearest_of_all(monkeypatch):
    monkeypatch.setattr(knn, "BLOCK", 64 * 8)
    rng = np.random.default_rng(3)
    bank, queries = rng.normal(size=(230, 8)), rng.normal(size=(37, 8))
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = unit(queries) @ unit(bank).T
    cosines, rows = nearest(bank, queries, k=12, block=10)
    np.testing.assert_allclose(np.take_along_axis(cosine, rows, 1), -np.sort(-cosine)[:, :12], atol=1e-6)
    np.testing.assert_allclose(cosines, -np.sort(-cosine)[:, :12], atol=1e-6)
    assert all(len(set(r)) == 12 for r in rows)
    assert nearest(bank[:5], queries, k=12)[1].shape == (37, 5)


@pytest.mark.parametrize("order", ["random", "nearest last", "nearest first"])
@pytest.mark.parametrize("k", [1, 7, 100])
def test_numpy_and_tensorflow_find_the_same(monkeypatch, order, k):
    """In blocks and chunks; also where each block has k better rows than all before."""
    monkeypatch.setattr(knn, "BLOCK", 64 * 16)
    monkeypatch.setattr(knn, "CHUNK", 200)
    rng = np.random.default_rng(k)
    bank, queries = rng.normal(size=(500, 16)).astype(np.float32), rng.normal(size=(23, 16))
    if order != "random":
        queries = queries[:1] + 0.01 * queries
        bank = bank[np.argsort(bank @ queries[0])[:: 1 if order == "nearest last" else -1]]
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = unit(queries) @ unit(np.float64(bank)).T
    expected = -np.sort(-cosine, axis=1)[:, :k]
    for gpu in (False, True):
        monkeypatch.setattr(knn, "has_gpu", lambda gpu=gpu: gpu)
        cosines, rows = nearest(bank, queries, k, block=10)
        np.testing.assert_allclose(cosines, expected, atol=1e-6)
        np.testing.assert_allclose(np.take_along_axis(cosine, rows, 1), expected, atol=3e-7)
        assert all(len(set(r)) == k for r in rows)
    assert gpu_search._merge.experimental_get_tracing_count() == 1, "TensorFlow warns of many traces"


@pytest.mark.parametrize("width", [7, 64, 256])
@pytest.mark.parametrize("count", [1, 37])
def test_copies_are_in_the_order_of_their_rows(width, count):
    """Products of matrices give copies of a row cosines that differ in the last digits."""
    rng = np.random.default_rng(width)
    base = rng.normal(size=(37, width)).astype(np.float32)
    bank = np.concatenate([np.tile(base, (20, 1)), rng.normal(size=(301, width)).astype(np.float32)])
    cosines, rows = nearest(bank, base[:count], k=20)
    np.testing.assert_array_equal(rows, np.arange(count)[:, None] + 37 * np.arange(20))
    assert (cosines == cosines[:, :1]).all()
    assert (nearest(bank, base[:count], k=21)[0][:, 20] < 1 - 1e-3).all()


def test_features_that_all_agree_are_in_the_order_of_their_rows(monkeypatch):
    """Those of a collapsed network: all cosines are equal."""
    monkeypatch.setattr(knn, "CHUNK", 64)
    bank = np.tile(np.float32([3, 4, 0, 0]), (90, 1))
    cosines, rows = nearest(bank, bank[:5], k=8)
    np.testing.assert_array_equal(rows, np.tile(np.arange(8), (5, 1)))
    np.testing.assert_allclose(cosines, 1, atol=1e-6)


def test_tensorflow_is_not_loaded_for_a_search():
    code = "import sys, numpy as np, simsiam_tf as ss; ss.features.nearest(np.eye(9), np.eye(9), 2)"
    code += "; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_of_equal_cosines_the_lowest_row_is_first_across_blocks(monkeypatch):
    monkeypatch.setattr(knn, "BLOCK", 7 * 4)
    bank = np.tile(np.eye(4, dtype=np.float32), (25, 1))  # row i equals rows i + 4, i + 8, …
    rows = nearest(bank, np.eye(4, dtype=np.float32), k=6, block=3)[1]
    np.testing.assert_array_equal(rows, np.arange(4)[:, None] + 4 * np.arange(6))
