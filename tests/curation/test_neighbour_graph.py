"""Neighbour graphs equal a full sort of all cosines, in blocks, with ties, and by each search."""

import subprocess
import sys

import numpy as np
import pytest

from simsiam_tf.curation import cross_neighbours, neighbour_graph
from simsiam_tf.curation.neighbour_graph import check_faiss
from simsiam_tf.curation.unit_rows import UnitRows
from simsiam_tf.features import knn
from simsiam_tf.runtime.errors import UserError


def all_cosines(x, y):
    unit = [
        a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x.astype(np.float64), y.astype(np.float64))
    ]
    return unit[0] @ unit[1].T


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(knn, "BLOCK", 37_000)  # 37 rows for 1,000 queries


def test_graph_equals_a_full_sort_without_the_row_itself(small_blocks):
    x = np.random.default_rng(0).standard_normal((150, 8)).astype(np.float32)
    graph = neighbour_graph(x, 7)
    cosine = all_cosines(x, x)
    np.fill_diagonal(cosine, -np.inf)
    np.testing.assert_array_equal(graph.index, np.argsort(-cosine, axis=1)[:, :7])
    np.testing.assert_allclose(graph.cosine, -np.sort(-cosine, axis=1)[:, :7], atol=1e-6)
    assert graph.recall == 1


def test_neighbours_in_a_bank_equal_a_full_sort(small_blocks):
    rng = np.random.default_rng(1)
    bank, queries = rng.standard_normal((90, 5)), rng.standard_normal((33, 5))
    graph = cross_neighbours(bank, queries, 90)
    np.testing.assert_array_equal(graph.index, np.argsort(-all_cosines(queries, bank), axis=1))


def test_of_equal_cosines_the_lowest_rows_come_first_and_never_the_row_itself(small_blocks):
    x = np.tile(np.eye(4, dtype=np.float32), (50, 1))  # row i equals rows i ± 4, i ± 8, …
    graph = neighbour_graph(x, 6)
    for row in (0, 3, 77, 199):
        copies = np.arange(row % 4, 200, 4)
        np.testing.assert_array_equal(graph.index[row], copies[copies != row][:6])
    assert (graph.cosine == 1).all()


def test_faiss_finds_what_the_exact_search_finds_and_says_how_much(capfd):
    pytest.importorskip("faiss")
    rng = np.random.default_rng(2)
    x = rng.standard_normal((40, 16))[rng.integers(40, size=4000)] + 0.3 * rng.standard_normal((4000, 16))
    x[17] = x[3000]
    exact, approximate = neighbour_graph(x, 10, "exact"), neighbour_graph(x, 10, "faiss")
    found = np.mean(
        [len(np.intersect1d(a, b)) / 10 for a, b in zip(exact.index, approximate.index, strict=True)]
    )
    assert found > 0.9 and abs(found - approximate.recall) < 0.03
    assert f"recall of the 10 nearest {approximate.recall:.3f}" in capfd.readouterr().err
    assert not (approximate.index == np.arange(4000)[:, None]).any()
    assert approximate.index[17, 0] == 3000 and approximate.index[3000, 0] == 17
    pairs = all_cosines(x, x)[np.arange(4000)[:, None], approximate.index]
    np.testing.assert_allclose(approximate.cosine, pairs, atol=1e-5)


def test_all_lists_of_a_small_bank_are_searched_where_its_recall_needs_them(capfd):
    pytest.importorskip("faiss")
    x = np.random.default_rng(3).standard_normal((300, 64))
    exact = neighbour_graph(x, 10, "exact")
    graph = neighbour_graph(x, 10, "faiss")  # 7 lists, fewer than any of PROBES
    assert graph.recall == 1 and "7 of 7 lists searched" in capfd.readouterr().err
    np.testing.assert_allclose(graph.cosine, exact.cosine, atol=1e-5)


def test_many_rows_need_faiss_by_the_product_of_both_sets(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    check_faiss(100_000, 400_000)
    with pytest.raises(UserError, match=r"need faiss: pip install 'simsiam-tf\[faiss\]'\.$"):
        check_faiss(100_000, 400_001)


def test_lists_with_too_few_rows_are_made_up_for(monkeypatch):
    pytest.importorskip("faiss")
    from simsiam_tf.curation import faiss_search

    monkeypatch.setattr(faiss_search, "PROBES", (1,))
    x = np.random.default_rng(3).standard_normal((400, 6))  # 10 lists of some 40 rows
    graph, exact = neighbour_graph(x, 60, "faiss"), neighbour_graph(x, 60, "exact")
    assert graph.index.min() >= 0
    few = (graph.cosine == exact.cosine).all(axis=1)
    assert few.mean() > 0.5  # those whose list has fewer than 60 rows are searched exactly


def test_memory_maps_are_read_in_blocks_and_lengths_do_not_count(tmp_path, small_blocks):
    x = np.random.default_rng(4).standard_normal((120, 6)).astype(np.float32)
    scaled = x.astype(np.float64) * 10.0 ** np.linspace(-200, 200, 120)[:, None]
    np.save(tmp_path / "x.npy", scaled)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    graph, same = neighbour_graph(scaled, 5), neighbour_graph(x, 5)
    np.testing.assert_array_equal(scaled, mapped)  # the caller's array stays as it is
    np.testing.assert_array_equal(neighbour_graph(mapped, 5).index, same.index)
    np.testing.assert_array_equal(graph.index, same.index)
    rows = UnitRows(mapped)
    rows.step = 50
    assert [(block.start, len(part)) for block, part in rows.blocks()] == [(0, 50), (50, 50), (100, 20)]
    chosen = np.random.default_rng(5).integers(120, size=130)
    np.testing.assert_array_equal(rows[chosen], rows[:][chosen])


@pytest.mark.parametrize(
    "features, text",
    [
        (np.ones(5), r"shape \(5,\)"),
        (np.ones((1, 5)), "have 1 row"),
        (np.array([["a"], ["b"]]), "numbers"),
        (np.array([[1.0, 2], [0, 0], [1, 0]]), "row 1 is all zeros"),
        (np.array([[1.0, 2], [3, 1], [np.nan, 0]]), "row 2 has a NaN"),
        (np.array([[np.inf, 2], [3, 1]]), "row 0 has a NaN or an infinity"),
    ],
)
def test_features_that_have_no_direction_are_refused(features, text):
    with pytest.raises(UserError, match=text):
        neighbour_graph(features)


def test_other_arguments_are_checked():
    x = np.eye(4)
    for call, text in (
        (lambda: neighbour_graph(x, 0), "k=0: must be at least 1"),
        (lambda: neighbour_graph(x, search="all"), "Choose from auto"),
        (lambda: cross_neighbours(x, x[:, :2] + 1), "4 and 2 features"),
    ):
        with pytest.raises(UserError, match=text):
            call()


def test_answers_need_no_tensorflow():
    code = (
        "import sys, numpy as np, simsiam_tf as ss\n"
        "x = np.random.default_rng(0).standard_normal((60, 8))\n"
        "ss.curation.duplicates(x), ss.curation.outliers(x), ss.curation.k_means_clusters(x)\n"
        "ss.curation.subset(x, 3), ss.curation.suspects(x, np.arange(60) % 2)\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
