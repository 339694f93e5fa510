"""Points on a plane against NumPy; how long they take is said before."""

import subprocess
import sys

import numpy as np
import pytest

from simsiam_tf.curation_page import project
from simsiam_tf.curation_page import projection as projections
from simsiam_tf.html_report.projections import pca, tsne
from simsiam_tf.runtime.errors import UserError


def test_a_copy_is_placed_on_its_original_and_others_between_their_nearest(monkeypatch):
    monkeypatch.setattr(projections, "tsne_plane", lambda z, seed: np.arange(40.0).reshape(20, 2))
    features = np.random.default_rng(0).normal(size=(40, 6))
    sample = np.sort(np.random.default_rng(3).permutation(40)[:20])
    features[other := np.setdiff1d(np.arange(40), sample)[0]] = 5 * features[sample[7]]
    made = project(features, "tsne", sample=20, seed=3)
    np.testing.assert_array_equal(made.points[sample], np.arange(40).reshape(20, 2))
    np.testing.assert_allclose(made.points[other], [14, 15], atol=1e-3)
    z = features / np.linalg.norm(features, axis=1, keepdims=True)
    last = np.setdiff1d(np.arange(40), sample)[-1]
    distances = np.linalg.norm(z[sample] - z[last], axis=1)
    nearest = np.argsort(distances)[:5]
    weights = 1 / distances[nearest]
    expected = (weights[:, None] * made.points[sample][nearest]).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(made.points[last], expected, rtol=1e-3)
    assert str(made) == "t-SNE of 20 pictures, the others beside their nearest of these"


def test_a_map_says_how_long_it_may_take_before_it_begins(monkeypatch, capsys):
    said = []
    plane = lambda z, seed: said.append(capsys.readouterr().err) or z[:, :2]  # noqa: E731
    monkeypatch.setattr(projections, "SAMPLE", 10)
    monkeypatch.setattr(projections, "tsne_plane", plane)
    project(np.eye(40), "tsne", sample=30)
    project(np.eye(9), "tsne")
    assert said[0].startswith(
        "map: t-SNE of 30 of 40 pictures, which may take up to 3 minutes on two cores; --map_s"
    )
    assert said[1].startswith("map: t-SNE of 9 pictures, which may take up to 1 minute on two cores")
    project(np.eye(40), "pca")
    assert capsys.readouterr().err == ""


def test_pca_of_all_rows_is_that_of_the_report_in_blocks(monkeypatch):
    monkeypatch.setattr(projections, "BLOCK", 7)
    features = np.random.default_rng(0).normal(size=(50, 5)) * [5, 3, 1, 1, 1]
    expected, _ = pca(features)
    points = project(features, "pca").points
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-5)
    assert project(features[:1]).points.tolist() == [[0, 0]] and project(features[:0]).points.shape == (0, 2)
    assert project(features[:2, :1]).points.shape == (2, 2) and project(features[:7]).method == "pca"


@pytest.mark.parametrize("scale", [1e20, 1e200])
def test_features_of_any_size_have_the_same_map(scale):
    features = np.random.default_rng(0).normal(size=(50, 5))
    expected = project(features, "pca").points
    np.testing.assert_allclose(project(features * scale, "pca").points, expected, atol=1e-5)


@pytest.mark.parametrize("features", [np.full((12, 3), 0.7), np.linspace(-1, 1, 12)[:, None]])
def test_rows_that_span_no_plane_lie_along_principal_components(features):
    made = project(features, "tsne")
    expected, shares = pca(features)
    assert made.method == "pca" and shares[1] == 0 and np.isfinite(shares).all()
    np.testing.assert_allclose(np.abs(made.points), np.abs(expected), atol=1e-6)
    np.testing.assert_array_equal(tsne(features), expected)


def test_bad_projections_get_one_line(monkeypatch):
    features = np.ones((20, 3))
    with pytest.raises(UserError, match="projection=mds: is unknown"):
        project(features, "mds")
    with pytest.raises(UserError, match="row 4 has a NaN"):
        project(np.where(np.arange(20)[:, None] == 4, np.nan, features), "pca")
    monkeypatch.setattr(projections.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"simsiam-tf\[umap\]"):
        project(features, "umap")
    monkeypatch.setattr(projections, "tsne_plane", lambda z, seed: z[:, :2])
    assert project(np.eye(20), "auto").method == "tsne"


@pytest.mark.slow  # umap-learn compiles itself when it is imported
def test_umap_separates_clusters_without_loading_tensorflow():
    code = """
import sys, importlib.util
if importlib.util.find_spec("umap") is None: sys.exit(3)
import numpy as np
from simsiam_tf.curation_page import project
rng = np.random.default_rng(0)
centres = rng.normal(size=(3, 20))
groups = np.arange(150) % 3
made = project(centres[groups] + 0.1 * rng.normal(size=(150, 20)))
middles = np.stack([made.points[groups == g].mean(axis=0) for g in range(3)])
nearest = np.linalg.norm(made.points[:, None] - middles, axis=2).argmin(axis=1)
sys.exit(made.method != "umap" or (nearest != groups).any() or "tensorflow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip("needs umap-learn")
    assert done.returncode == 0, done.stderr
