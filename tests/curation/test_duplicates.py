"""Planted copies are found, other pictures are not; groups keep what they should."""

import numpy as np
import pytest

from simsiam_tf.curation import duplicate_cosine, duplicates, leaks, neighbour_graph
from simsiam_tf.curation.neighbour_graph import cross_neighbours
from simsiam_tf.runtime.errors import UserError


def clustered(rng, rows=1500, dimension=16, width=64, clusters=8, spread=0.5):
    """Rows [rows, width] in clusters of this intrinsic dimension."""
    centres = rng.standard_normal((clusters, width))
    bases = rng.standard_normal((clusters, dimension, width)) / dimension**0.5
    cluster = rng.integers(clusters, size=rows)
    spread = np.broadcast_to(spread, clusters)[cluster, None]
    within = np.einsum("nm,nmf->nf", rng.standard_normal((rows, dimension)), bases[cluster])
    return centres[cluster] + spread * within


def noisy(rng, x, noise):
    """Copies of rows, moved by this share of their length."""
    error = rng.standard_normal(x.shape)
    return x + noise * error * np.linalg.norm(x, axis=1, keepdims=True) / np.linalg.norm(
        error, axis=1, keepdims=True
    )


def test_a_cosine_of_one_takes_equal_rows_whose_float32_cosines_are_below_it():
    x = np.random.default_rng(0).standard_normal((50, 64)).astype(np.float32)
    assert duplicates(np.vstack([x, x]), cosine=1.0).others.tolist() == list(range(50, 100))
    assert sorted(leaks(x, x[::-1], cosine=1.0).rows) == list(range(50))


def test_leaks_by_a_given_cosine_search_one_neighbour(monkeypatch):
    asked = []
    monkeypatch.setitem(
        leaks.__globals__,
        "cross_neighbours",
        lambda *sets_k: asked.append(sets_k[2]) or cross_neighbours(*sets_k),
    )
    x = np.random.default_rng(0).standard_normal((30, 8))
    assert sorted(leaks(x, x, cosine=0.9).rows) == sorted(leaks(x, x).rows) == list(range(30))
    assert asked == [1, 20]


@pytest.mark.parametrize("share", [0.005, 0.1, 0.4])
@pytest.mark.parametrize("noise", [0.0, 0.01, 0.05])
def test_planted_copies_are_found_and_nothing_else(share, noise):
    rng = np.random.default_rng(0)
    x = clustered(rng)
    sources = rng.choice(len(x), int(share * len(x)), replace=False)
    found = duplicates(np.vstack([x, noisy(rng, x[sources], noise)]))
    right = np.intersect1d(found.others, np.arange(len(x), len(x) + len(sources)))
    assert len(right) >= 0.97 * len(sources)
    assert len(right) >= 0.99 * len(found.others)
    assert (found.kept[found.group] == sources[found.others - len(x)]).all()


def test_the_threshold_is_half_way_between_the_farthest_copy_and_the_nearest_other_picture():
    rng = np.random.default_rng(0)
    x = clustered(rng, 800)
    x = np.vstack([x, noisy(rng, x[:80], np.linspace(0.01, 0.05, 80)[:, None])])
    distance = 1 - neighbour_graph(x).cosine[:, 0]
    copies = np.r_[:80, 800:880]
    expected = np.sqrt(distance[copies].max() * np.delete(distance, copies).min())
    assert duplicates(x).threshold == pytest.approx(1 - expected, rel=1e-6)


@pytest.mark.parametrize(
    "features",
    [
        pytest.param({"dimension": 2}, id="few dimensions"),
        pytest.param({"dimension": 64}, id="many dimensions"),
        pytest.param({"spread": np.geomspace(0.02, 1, 8)}, id="narrow and wide classes"),
        pytest.param({"spread": [0.02, *[0.5] * 7]}, id="one narrow class"),
    ],
)
def test_without_copies_hardly_any_are_found(features):
    for seed in range(3):
        assert len(duplicates(clustered(np.random.default_rng(seed), **features)).others) <= 2


def test_digits_of_scikit_learn_have_no_duplicates_but_planted_ones():
    from sklearn.datasets import load_digits

    x = load_digits().data
    assert len(duplicates(x).others) == 0
    found = duplicates(np.vstack([x, noisy(np.random.default_rng(0), x[::20], 0.02)]))
    assert set(found.others) == set(range(len(x), len(x) + len(x[::20])))


def test_variants_farther_than_a_fifth_of_the_usual_distance_are_no_duplicates():
    rng = np.random.default_rng(0)
    x = clustered(rng, dimension=32, spread=3.0)
    x = np.vstack([x, noisy(rng, x[:500], np.linspace(0.01, 1.0, 500)[:, None])])
    usual = np.quantile(1 - neighbour_graph(x).cosine[:, 0], 0.75)
    found = duplicates(x)
    assert found.threshold == pytest.approx(1 - usual / 5)  # 0.917; without this limit it would be 0.881
    assert len(found.others) == 215 and found.others.min() == 1500


def test_a_walk_is_not_one_group():
    steps = np.cumsum(np.random.default_rng(0).standard_normal((1000, 32)), axis=0)
    assert len(duplicates(steps).others) == 0


def angles(degrees):
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)


def test_a_chain_is_cut_at_what_is_near_to_the_kept_one():
    x, cosine = angles(np.arange(0, 50, 5.0)), np.cos(np.radians(5.1))
    found = duplicates(x, cosine=cosine)  # row 0 takes 1, row 2 takes 3, …
    assert [list(group) for group in found.groups()] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    found = duplicates(x, cosine=cosine, area=[1, 1, 1, 1, 9, 1, 1, 1, 1, 1])
    assert [list(group) for group in found.groups()] == [[0, 1], [4, 3, 5], [6, 7], [8, 9]]
    assert np.setdiff1d(np.arange(10), found.others).tolist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("k", [3, 20])
def test_no_two_kept_rows_are_near_and_each_other_is_near_to_its_kept_row(k):
    x, cosine = np.random.default_rng(1).standard_normal((400, 3)), 0.98  # each row is near to some 4
    x[100:200] = noisy(np.random.default_rng(2), x[[7] * 100], 0.01)  # many more than k near ones
    graph = neighbour_graph(x, k)
    assert (graph.cosine[:, -1] >= cosine).sum() > 100
    found = duplicates(x, graph, cosine)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = unit @ unit.T
    left = np.setdiff1d(np.arange(400), found.others)
    assert (cosines[np.ix_(left, left)] - 2 * np.eye(len(left))).max() < cosine
    np.testing.assert_allclose(found.cosine, cosines[found.others, found.kept[found.group]], atol=1e-6)
    assert found.cosine.min() >= cosine
    assert len(found.others) == len(set(found.others)) and not set(found.kept) & set(found.others)


def test_the_largest_then_the_sharpest_then_the_first_name_is_kept():
    x = np.repeat(np.eye(4), 3, axis=0)  # rows 0 to 2 are equal, 3 to 5, …
    area = [1, 3, 2, 5, 5, 4, 5, 5, 5, 7, 7, 7]
    sharpness = [9, 1, 9, 1, 2, 9, 4, 4, 3, 2, 2, 2]
    names = ["", "", "", "", "", "", "b", "a", "", "x", "x", "x"]
    found = duplicates(x, cosine=0.9, area=area, sharpness=sharpness, names=names)
    assert found.kept.tolist() == [1, 4, 7, 9]
    assert sorted(found.others) == [0, 2, 3, 5, 6, 8, 10, 11]


def test_of_equal_areas_lossless_then_large_files_are_kept_and_gifs_last():
    x = np.repeat(np.eye(3), 3, axis=0)
    formats = ["JPEG", "PNG", "GIF", "JPEG", "WEBP", "GIF", "JPEG", "JPEG", "JPEG"]
    files = {"formats": formats, "file_sizes": [9, 5, 99, 4, 3, 99, 1, 1, 1]}
    found = duplicates(x, cosine=0.9, sharpness=[7, 6, 9, 6, 7, 9, 1, 2, 1], **files)
    assert found.kept.tolist() == [1, 3, 7]
    assert duplicates(x, cosine=0.9, area=[1, 1, 2] * 3, **files).kept.tolist() == [2, 5, 8]


def test_of_equal_files_the_one_of_fewest_folders_then_of_the_shortest_name_is_kept():
    names = ["a/a/x.png", "2024-05/copy of x.png", "2024-05/x.png", "copy of y.png", "z.png", "y.png"]
    assert duplicates(np.repeat(np.eye(2), 3, axis=0), cosine=0.9, names=names).kept.tolist() == [2, 5]


def test_equal_digests_are_duplicates_whatever_the_features():
    x = angles([0, 1, 40, 80, 120, 160])
    found = duplicates(x, cosine=0.999, digests=list("abcadc"), area=[1, 1, 1, 2, 1, 1])
    # 3 is the larger of "a", so that it stands for 0, which alone is near to 1.
    assert [list(group) for group in found.groups()] == [[2, 5], [3, 0, 1]]
    assert dict(zip(found.others.tolist(), found.exact.tolist(), strict=True)) == {5: True, 0: True, 1: False}


def test_equal_rows_are_duplicates_however_few_and_however_many():
    assert duplicates(np.ones((2, 3))).others.tolist() == [1]
    assert duplicates(np.ones((500, 3))).others.tolist() == list(range(1, 500))
    assert duplicate_cosine(neighbour_graph(np.eye(3)).cosine) > 0.999


def test_leaks_name_the_source_of_each_copy():
    rng = np.random.default_rng(3)
    x = clustered(rng, 2000)
    train, test = x[:1500], x[1500:].copy()
    test[::25] = noisy(rng, train[:500:25], 0.02)
    found = leaks(test, train)
    np.testing.assert_array_equal(np.sort(found.rows), np.arange(0, 500, 25))
    np.testing.assert_array_equal(found.source, found.rows)
    assert (np.diff(found.cosine) <= 0).all() and not found.exact.any()
    assert len(leaks(x[1500:], train).rows) == 0


def test_leaks_of_equal_digests_come_first():
    train, test = angles([0, 30, 60]), angles([59.5, 10])
    found = leaks(test, train, cosine=0.99, digests=["p", "q"], against_digests=["r", "q", "s"])
    assert (found.rows.tolist(), found.source.tolist()) == ([1, 0], [1, 2])  # row 1 is nearer to 0 than to 1
    assert found.exact.tolist() == [True, False]
    np.testing.assert_allclose(found.cosine, np.cos(np.radians([20, 0.5])), atol=1e-6)


def test_arguments_are_checked():
    x = np.eye(3)
    for call, text in (
        (lambda: duplicates(x, cosine=1.5), "cosine=1.5"),
        (lambda: duplicates(x, digests=["a"]), "`digests`: has shape"),
        (lambda: duplicates(x, sharpness=[1, np.nan, 2]), "`sharpness`: row 1 is NaN"),
        (lambda: duplicates(x, neighbour_graph(np.eye(4))), "has 4 rows, the features have 3"),
        (lambda: leaks(x, x, digests=["a"] * 3), "Pass both or none"),
    ):
        with pytest.raises(UserError, match=text):
            call()


def test_a_set_without_duplicates_has_no_groups():
    found = duplicates(np.random.default_rng(0).standard_normal((60, 12)))
    assert found.groups() == [] and not len(found.others)
