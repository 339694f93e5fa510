"""Copies of a picture make it neither typical nor central, and hide no outlier."""

import numpy as np
import pytest

from simsiam_tf.curation import (
    distinct_neighbours,
    duplicates,
    hdbscan_clusters,
    k_means_clusters,
    neighbour_graph,
    outliers,
    subset,
)
from simsiam_tf.curation import distinct_neighbours as function
from simsiam_tf.curation.answers import Question, answer
from simsiam_tf.curation.picture_set import PictureSet

K, COUNT = 10, 300
COPIED = {3: 1, 8: 4, 20: 30, 21: 2}  # row → copies; of row 20 more than K


@pytest.fixture(scope="module")
def copied():
    """(rows of which some have copies at the end, their duplicates)."""
    x = np.random.default_rng(0).standard_normal((COUNT, 8)).astype(np.float32)
    x = np.concatenate([x, *(np.repeat(x[[row]], times, axis=0) for row, times in COPIED.items())])
    found = duplicates(x, neighbour_graph(x, K), cosine=0.9999)
    assert found.others.min() == COUNT and len(found.others) == sum(COPIED.values())
    return x, found


@pytest.mark.parametrize("cosines", [2**24, 40], ids=["at once", "in parts"])
def test_neighbours_are_those_among_the_kept_rows(copied, monkeypatch, cosines):
    monkeypatch.setitem(function.__globals__, "COSINES", cosines)
    x, found = copied
    graph = neighbour_graph(x, K)
    made, true = distinct_neighbours(x, graph, found), neighbour_graph(x[:COUNT], K)
    left_out = (graph.index[:COUNT] >= COUNT).sum(axis=1)
    assert left_out[20] == K and 0 < (left_out > K / 2).sum() < (left_out > 0).sum()
    for row in range(COUNT):
        few = left_out[row] <= K / 2
        same = K - left_out[row] if few else K
        place = np.flatnonzero(graph.index[row] < COUNT) if few else slice(None)
        np.testing.assert_array_equal(made.index[row, place], true.index[row, :same])
        np.testing.assert_allclose(made.cosine[row, place], true.cosine[row, :same], atol=1e-6)
    # The k-th neighbour stands for those that are missing, and is at least as near as they are.
    filled = np.sort(made.cosine[:COUNT], axis=1)[:, ::-1]
    assert (filled >= true.cosine - 1e-6).all() and (filled - true.cosine).max() < 0.1
    np.testing.assert_array_equal(made.index[found.others], made.index[found.kept[found.group]])


def test_a_few_groups_of_many_copies_have_neighbours():
    x = np.repeat(np.eye(3) + 0.1, 15, axis=0)
    graph = neighbour_graph(x, K)
    made = distinct_neighbours(x, graph, duplicates(x, graph))
    assert {frozenset(row) for row in made.index} == {
        frozenset({0, 15}),
        frozenset({0, 30}),
        frozenset({15, 30}),
    }
    same = np.ones((15, 3))
    graph = neighbour_graph(same, K)
    assert distinct_neighbours(same, graph, duplicates(same, graph)) is graph


def test_a_copied_outlier_is_an_outlier():
    x = np.random.default_rng(0).standard_normal((200, 4)) * 0.1 + [3, 0, 0, 0]
    x[:15] = [0, 0, 0, 1]  # a stranger with more copies than there are neighbours
    names = np.array([f"{i}.png" for i in range(200)], object)
    assert set(outliers(x, neighbour_graph(x, K)).rows[:15]).isdisjoint(range(15))
    answers = answer(PictureSet(names, x), Question(neighbours=K, cosine=0.9999, clusters=2))
    assert set(answers.outliers.rows[:15]) == set(range(15))


def blobs_with_copies():
    """(three groups of 40 rows, the same with two copies of 5 less typical rows of each, these 15 rows)."""
    rng = np.random.default_rng(1)
    x = np.eye(16)[np.arange(120) % 3] + 0.15 * rng.standard_normal((120, 16))
    typicality = neighbour_graph(x, 5).cosine.mean(axis=1)
    rare = np.concatenate([np.arange(c, 120, 3)[np.argsort(typicality[c::3])[10:15]] for c in range(3)])
    return x, np.concatenate([x, x[rare], x[rare]]), rare


def test_a_picture_is_not_typical_or_central_by_its_copies():
    x, both, rare = blobs_with_copies()
    graph = neighbour_graph(both, 5)
    found = duplicates(both, graph, cosine=0.9999)
    expected = subset(x, 3, method="typical", graph=neighbour_graph(x, 5))
    beside_copies = subset(both, 3, method="typical", graph=graph)
    assert set(beside_copies.rows) != set(expected.rows)  # the neighbour at cosine 1 decides
    distinct = distinct_neighbours(both, graph, found)
    assert set(subset(both, 3, (), "typical", distinct, copies=found).rows) == set(expected.rows)
    answers = answer(PictureSet(np.arange(150).astype(str), both), Question(5, 0.9999, 3, subset=3))
    assert set(answers.subset.rows) == set(expected.rows)
    for clusters in (
        answers.clusters, k_means_clusters(both, 3, central=60, copies=found),
        hdbscan_clusters(both, 20, central=60, copies=found),
    ):  # fmt: skip
        assert clusters.size.max() > 40 and clusters.central.max() < 120
    assert k_means_clusters(both, 3, central=60).central.max() >= 120


@pytest.mark.parametrize("method", ["typical", "k_centre"])
def test_copies_are_labelled_last_and_count_as_labelled_with_their_picture(method):
    _, both, rare = blobs_with_copies()
    found = duplicates(both, neighbour_graph(both, 5), cosine=0.9999)
    chosen = subset(both, 150, (), method, copies=found)
    assert sorted(chosen.rows) == list(range(150)) and set(chosen.rows[120:]) == set(range(120, 150))
    have = [120, 121]  # copies of two pictures
    chosen = subset(both, 148, have, method, copies=found)
    assert set(chosen.rows[:118]) == set(range(120)) - set(rare[:2]) and chosen.labelled == 2
