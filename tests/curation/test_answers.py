"""Outliers, clusters, subsets and statistics equal what scikit-learn or a slow loop says."""

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.neighbors import NearestNeighbors

from simsiam_tf.curation import clusters as clusters_module
from simsiam_tf.curation import (
    hdbscan_clusters,
    k_means,
    k_means_clusters,
    neighbour_graph,
    outliers,
    picture_statistics,
    statistics_table,
    subset,
)
from simsiam_tf.curation import subset as subset_function
from simsiam_tf.curation.subset import few_labels
from simsiam_tf.runtime.errors import UserError


def blobs(rng, sizes=(300, 200, 100, 50), width=32, spread=0.1):
    """Rows around well separated directions, in random order, and the direction of each."""
    label = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return np.eye(width)[label] + spread * rng.standard_normal((len(label), width)), label


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_outlier_scores_are_the_mean_distances_to_scikit_learns_neighbours():
    rng = np.random.default_rng(0)
    x, _ = blobs(rng)
    x[[5, 77]] = rng.standard_normal((2, 32))
    index = NearestNeighbors(n_neighbors=9, metric="cosine").fit(x).kneighbors(return_distance=False)
    distance = np.linalg.norm(x[:, None] - x[index], axis=2)
    result = outliers(x, neighbour_graph(x, 9))
    np.testing.assert_allclose(result.score, distance.mean(axis=1), atol=1e-5)
    assert set(result.rows[:2]) == {5, 77}
    np.testing.assert_array_equal(result.rank[result.rows], np.arange(len(x)))


@pytest.mark.parametrize("scale", [1e-200, 1e20, 1e200])
def test_outlier_scores_scale_with_the_features(scale):
    x, _ = blobs(np.random.default_rng(0))
    result, scaled = outliers(x), outliers(x * scale)
    np.testing.assert_allclose(scaled.score / scale, result.score, rtol=1e-4)
    np.testing.assert_array_equal(scaled.rows[:20], result.rows[:20])


def test_strangers_that_look_alike_are_outliers_by_the_length_of_whitened_features():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 32))
    x[:4] = 3 * rng.standard_normal(32) + 0.3 * x[:4]  # nearer to each other than any others are
    assert set(outliers(x).rows[:4]) == set(range(4))
    assert set(outliers(unit(x)).rows[-4:]) == set(range(4))


@pytest.mark.parametrize("full", [20_000, 300], ids=["at once", "in mini-batches"])
def test_k_means_finds_separate_groups_and_their_number(monkeypatch, full):
    monkeypatch.setattr(k_means, "FULL_ROWS", full)
    monkeypatch.setattr(k_means, "BATCH", 200)
    monkeypatch.setattr(k_means, "BATCHES", 20)
    x, label = blobs(np.random.default_rng(1))
    result = k_means_clusters(x, (2, 3, 4, 6, 8), labels=np.array(list("dcba"))[label], central=5)
    np.testing.assert_array_equal(result.cluster, label)  # numbered from the largest on
    assert result.size.tolist() == [300, 200, 100, 50] and result.share.sum() == 1
    assert result.classes.tolist() == list("abcd")
    np.testing.assert_array_equal(result.label_counts, np.diag(result.size)[:, ::-1])
    for c in range(4):
        members = np.flatnonzero(label == c)
        centrality = unit(x[members]) @ unit(x[members]).mean(axis=0)
        most_central = members[np.argsort(-centrality)[:5]]
        assert len(np.intersect1d(result.central[c], most_central)) >= 4  # batches move the centre a little
    centred = unit(x) - unit(x).mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:16]
    reference = silhouette_score(centred @ axes.T, label, metric="cosine")
    np.testing.assert_allclose(result.silhouette[4], reference, atol=1e-4)
    assert max(result.silhouette, key=result.silhouette.get) == 4


def test_mini_batches_hold_a_row_for_each_cluster(monkeypatch):
    monkeypatch.setattr(k_means, "FULL_ROWS", 300)
    monkeypatch.setattr(k_means, "BATCH", 8)
    monkeypatch.setattr(k_means, "BATCHES", 2)
    x, _ = blobs(np.random.default_rng(1))
    assert k_means_clusters(x, 10).size.sum() == len(x)


def test_the_number_of_clusters_is_found_in_many_noisy_dimensions():
    rng = np.random.default_rng(0)
    x = 0.5 * rng.standard_normal((1200, 400))
    label = rng.integers(6, size=1200)
    x[:, :8] += 3 * rng.standard_normal((6, 8))[label]
    result = k_means_clusters(x)  # by silhouettes in all dimensions, it would be 3
    assert len(result.size) == 6 and adjusted_rand_score(label, result.cluster) > 0.99


def test_k_means_of_a_given_number_tries_no_other():
    x, _ = blobs(np.random.default_rng(2))
    result = k_means_clusters(x, 7)
    assert len(result.size) == 7 and result.silhouette == {}
    assert len(k_means_clusters(np.eye(3), (7, 9)).size) == 1
    assert len(k_means_clusters(np.eye(3), 3).size) == 3


@pytest.mark.parametrize("most", [10_000, 300], ids=["all", "a sample"])
def test_hdbscan_finds_separate_groups_and_leaves_strangers_out(monkeypatch, most):
    monkeypatch.setattr(clusters_module, "HDBSCAN_ROWS", most)
    rng = np.random.default_rng(3)
    x, label = blobs(rng, (300, 250, 200))
    x[:4] = -np.eye(32)[4:8]
    result = hdbscan_clusters(x, min_size=20, labels=label)
    assert (result.cluster[:4] == -1).all()
    inside = result.cluster >= 0
    assert inside.mean() > 0.9 and len(result.size) == 3
    assert adjusted_rand_score(label[inside], result.cluster[inside]) == 1
    assert result.size.sum() == inside.sum() == result.label_counts.sum()


def greedy(x, count, chosen):
    """k-centre greedy with all distances computed for each choice."""
    chosen = list(chosen)
    start = len(chosen)
    if not chosen:
        chosen.append(int((x @ x.mean(axis=0)).argmax()))
    while len(chosen) < start + count:
        distance = 1 - (x @ x[chosen].T).max(axis=1)
        distance[chosen] = -np.inf
        chosen.append(int(distance.argmax()))
    return chosen[start:]


@pytest.mark.parametrize("pool", [2**15, 20])
@pytest.mark.parametrize("have", [[], [3, 400]])
def test_k_centre_equals_the_slow_loop(monkeypatch, pool, have):
    from simsiam_tf.curation.subset import _k_centre

    monkeypatch.setitem(_k_centre.__globals__, "POOL", pool)
    x = np.random.default_rng(4).standard_normal((500, 10))
    result = subset(x, 60, have, "k_centre")
    assert result.rows.tolist() == greedy(unit(x), 60, have)
    assert np.isinf(result.score[0]) == (not have)
    assert (np.diff(result.score) <= 0).all()


def test_k_centre_takes_a_row_of_each_group_first():
    x, label = blobs(np.random.default_rng(5), spread=0.02)
    assert sorted(label[subset(x, 4, method="k_centre").rows]) == [0, 1, 2, 3]
    have = [int(np.argmax(label == 1)), int(np.argmax(label == 3))]
    assert sorted(label[subset(x, 2, have, "k_centre").rows]) == [0, 2]


@pytest.mark.parametrize(("rows", "have", "count", "method"), [
    (100, 0, 20, "typical"), (100, 0, 21, "k_centre"), (100, 15, 5, "typical"), (100, 15, 6, "k_centre"),
    (4000, 0, 500, "typical"), (4000, 1, 500, "k_centre"),
])  # fmt: skip
def test_few_labels_are_of_typical_pictures_and_many_of_unlike_ones(rows, have, count, method):
    """By the budget: known and wanted labels, up to 500 and a fifth of the rows."""
    assert few_labels(have + count, rows) == (method == "typical")
    if rows == 100:
        x = np.random.default_rng(8).standard_normal((rows, 6))
        chosen, wanted = (subset(x, count, range(have), m) for m in ("auto", method))
        assert chosen.method == method and chosen.rows.tolist() == wanted.rows.tolist()


def test_typical_takes_the_most_typical_row_of_each_group_the_largest_first():
    x, label = blobs(np.random.default_rng(6), spread=0.02)
    graph = neighbour_graph(x)
    typicality = graph.cosine.mean(axis=1)
    best = [max(np.flatnonzero(label == c), key=lambda row: typicality[row]) for c in range(4)]
    result = subset(x, 4, method="typical", graph=graph)
    assert result.rows.tolist() == best
    np.testing.assert_array_equal(result.score, typicality[best])
    have = np.flatnonzero(label == 0)[:1]
    assert subset(x, 3, have, "typical", graph).rows.tolist() == best[1:]


@pytest.mark.parametrize("method", ["k_centre", "typical"])
def test_all_rows_can_be_chosen_each_once(method):
    x = np.vstack([np.ones((30, 4)), np.random.default_rng(7).standard_normal((30, 4))])
    assert sorted(subset(x, 58, [1, 2], method).rows) == [0, *range(3, 60)]


def test_arguments_are_checked():
    x = np.random.default_rng(0).standard_normal((10, 3))
    for call, text in (
        (lambda: subset(x, 0), "count=0"),
        (lambda: subset(x, 10, [1]), "more than the rows that are left, 9"),
        (lambda: subset(x, 1, [10]), "row numbers from 0 to 9"),
        (lambda: subset(x, 1, ["a"]), "row numbers from 0 to 9"),
        (lambda: subset(x, 1, method="best"), "Choose from auto, k_centre, typical"),
        (lambda: k_means_clusters(x, 0), "clusters=0"),
        (lambda: k_means_clusters(x, len(x) + 1), "Pass fewer"),
        (lambda: k_means_clusters(x, labels=[1]), "`labels`: has shape"),
        (lambda: hdbscan_clusters(x, 1), "min_size=1"),
        (lambda: outliers(x, neighbour_graph(x[:4])), "has 4 rows"),
        (lambda: picture_statistics(np.zeros((2, 2, 3))), "Pass uint8"),
        (lambda: statistics_table([]), "Pass at least one"),
    ):
        with pytest.raises(UserError, match=text):
            call()


def test_statistics_by_hand():
    image = np.zeros((128, 128, 3), np.uint8)
    image[:, 64:] = 255
    s = picture_statistics(image)
    assert (s.width, s.height, s.aspect) == (128, 128, 1)
    np.testing.assert_allclose([s.brightness, s.contrast], [0.5, 0.5], atol=1e-6)
    laplacian = np.zeros((126, 126))  # +1 left of the edge, −1 right of it
    laplacian[:, 62], laplacian[:, 63] = 1, -1
    np.testing.assert_allclose(s.sharpness, laplacian.var(), rtol=1e-5)
    red = picture_statistics(np.full((4, 8, 3), (255, 0, 0), np.uint8))
    np.testing.assert_allclose([red.brightness, red.contrast, red.sharpness], [0.299, 0, 0], atol=1e-6)
    assert (red.width, red.height, red.aspect) == (8, 4, 2)
    assert picture_statistics(np.full((4, 4, 2), (255, 0), np.uint8)).brightness == pytest.approx(0.5)


def test_sharpness_tells_blurred_from_sharp_at_any_size():
    noise = np.random.default_rng(8).integers(0, 256, (64, 96), np.uint8)
    sharp = Image.fromarray(noise).resize((960, 640), Image.Resampling.BICUBIC)
    half = sharp.resize((480, 320), Image.Resampling.BOX)
    blurred = sharp.resize((32, 21), Image.Resampling.BOX).resize((960, 640), Image.Resampling.BICUBIC)
    of_sharp, of_half, of_blurred = (
        picture_statistics(np.asarray(picture)).sharpness for picture in (sharp, half, blurred)
    )
    assert of_sharp == pytest.approx(of_half, rel=0.15)
    assert of_blurred < 0.3 * of_sharp
    assert picture_statistics(np.asarray(sharp)[:1, :1]).sharpness == 0


def test_the_oddest_picture_is_the_farthest_from_the_median():
    values = {100: 8, 110: 250, 400: 10, 30: 11, 90: 13}  # height → brightness
    pictures = [np.full((height, 100), value, np.uint8) for height, value in values.items()]
    table = statistics_table(pictures)
    # |log| of 1, 1.1, 4, 0.3 and 0.9, the heights in medians
    assert table.oddness["height"].tolist() == [4, 3, 0, 1, 2]
    assert table.oddness["brightness"].tolist() == [1, 0, 3, 4, 2]
    assert table.area.tolist() == [10_000, 11_000, 40_000, 3000, 9000]


def test_the_function_is_what_the_package_shows():
    assert subset_function is subset
