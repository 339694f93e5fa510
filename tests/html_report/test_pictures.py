"""Spectrum, saliency, projections and clusters of the report against values by hand."""

import types

import keras
import numpy as np
import pytest

from simsiam_tf import nets
from simsiam_tf.html_report import gallery
from simsiam_tf.html_report import saliency as salient
from simsiam_tf.html_report.projections import clusters, pca, tsne, variance_shares
from simsiam_tf.html_report.saliency import saliency


def test_spectrum_by_hand():
    """Unit vectors on two axes, three parts to one: the covariance is known."""
    x = np.array(
        [[2.0, 0, 0], [-5, 0, 0], [1, 0, 0], [-1, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 9, 0], [0, -1, 0]]
    )
    np.testing.assert_allclose(variance_shares(x), [0.75, 0.25, 0], atol=1e-12)
    assert not variance_shares(np.ones((4, 3))).any()


@pytest.mark.parametrize(("shares", "half", "most"), [((0.5, 0.45, 0.05), 1, 2), ((0.4, 0.3, 0.3), 2, 3)])
def test_directions_by_hand(monkeypatch, shares, half, most):
    monkeypatch.setattr(gallery, "variance_shares", lambda features: np.array(shares))
    sample = types.SimpleNamespace(trained_features=np.eye(4, 3))
    (text,) = gallery.spectrum_section(sample).text
    assert f" {half} hold half" in text and f" {most} hold 95 %" in text


def two_halves():
    """Channel 0 looks at the left half of an image, channel 1 at the right; features are their sums."""
    images = keras.Input((None, None, 2))
    maps = keras.layers.ReLU(name="maps")(images)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(maps))


def test_saliency_is_high_where_two_views_agree():
    view = np.zeros((2, 8, 8, 2), np.float32)
    view[:, :, :4, 0] = 1  # what channel 0 sees lies on the left
    view[:, :, 4:, 1] = 1
    other = np.zeros_like(view)
    other[0, ..., 0], other[1, ..., 1] = 1, 1  # the first other view has only 0, the second only 1
    found = saliency(two_halves(), view, other)
    assert found.shape == (2, 8, 8)
    assert (found[0, :, :4] == 1).all() and (found[0, :, 4:] == 0).all()
    assert (found[1, :, :4] == 0).all() and (found[1, :, 4:] == 1).all()


def test_saliency_is_the_gradient_of_the_cosine():
    """On a network's own map, by finite differences of the cosine."""
    keras.utils.set_random_seed(1)
    images = keras.Input((8, 8, 2))
    maps = keras.layers.Conv2D(5, 3, padding="same", activation="tanh")(images)
    backbone = keras.Model(images, keras.layers.Dense(4)(keras.layers.Flatten()(maps)))
    rng = np.random.default_rng(0)
    view, other = rng.normal(size=(2, 1, 8, 8, 2)).astype(np.float32)
    dense, conv = backbone.layers[-1], backbone.layers[1]
    goal = backbone(other).numpy()[0].astype(np.float64)
    a = conv(view).numpy()[0].astype(np.float64)

    def cosine(a):
        f = a.reshape(-1) @ dense.kernel.numpy().astype(np.float64) + dense.bias.numpy()
        return f @ goal / np.linalg.norm(f) / np.linalg.norm(goal)

    gradient = np.zeros_like(a)
    for place in np.ndindex(a.shape):
        step = np.zeros_like(a)
        step[place] = 1e-4
        gradient[place] = (cosine(a + step) - cosine(a - step)) / 2e-4
    expected = np.maximum((a * gradient).sum(axis=2), 0)
    np.testing.assert_allclose(saliency(backbone, view, other)[0], expected / expected.max(), atol=2e-3)


def test_the_feature_map_is_the_deepest_that_is_large_enough():
    backbone = nets.resnet10(stem="small", width=0.125, channels=1)
    assert salient._feature_map(backbone, 28).name == backbone.get_layer("stage2_block1_relu").output.name
    assert salient._feature_map(backbone, 224).name == backbone.get_layer("stage4_block1_relu").output.name
    flat = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="no feature map"):
        saliency(flat, np.zeros((1, 4, 4, 1)), np.zeros((1, 4, 4, 1)))


def blobs():
    rng = np.random.default_rng(0)
    centres = np.eye(6)[:3] * 4
    truth = np.repeat([0, 1, 2], (40, 20, 10))
    return (centres[truth] + rng.normal(0, 0.2, (70, 6))).astype(np.float32), truth


def test_clusters_are_ordered_by_size():
    x, truth = blobs()
    assert (clusters(x, 3) == truth).all()
    assert clusters(x[:6]).max() == 0


def test_projections_separate_clusters():
    x, truth = blobs()
    for plane in (pca(x)[0], tsne(x)):
        assert plane.shape == (70, 2)
        centres = np.stack([plane[truth == g].mean(axis=0) for g in range(3)])
        nearest = np.linalg.norm(plane[:, None] - centres, axis=2).argmin(axis=1)
        assert (nearest == truth).all()
    z = x / np.linalg.norm(x, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(np.cov(z, rowvar=False))[::-1]
    np.testing.assert_allclose(pca(x)[1], values[:2] / values.sum(), rtol=1e-4)
    assert (tsne(x, seed=3) == tsne(x, seed=3)).all()
    assert tsne(x[:4]).shape == (4, 2)
