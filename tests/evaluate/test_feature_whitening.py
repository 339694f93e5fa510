"""Whitening: equal to NumPy's and scikit-learn's, safe where features are few or collapsed, a Dense layer."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from sklearn.decomposition import PCA

from simsiam_tf import nets
from simsiam_tf.data import Augmentation, Views, from_arrays
from simsiam_tf.evaluate import finishing
from simsiam_tf.evaluate.finishing import fit_whitening
from simsiam_tf.features import columns, extract
from simsiam_tf.nets import whitening
from simsiam_tf.nets.whitening import (
    finish_like,
    read_quarters,
    reads_quarters,
    whitening_layer,
    without_whitening,
)
from simsiam_tf.pretrained import backbone_file


def features(rows=500, width=12, seed=0):
    """Features of correlated directions, far from 0."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, width)) @ rng.normal(size=(width, width)) + 5).astype(np.float32)


def test_whitening_is_the_formula(monkeypatch):
    monkeypatch.setattr(columns, "BLOCK", 100)  # several blocks
    x, s = features(), 0.3
    centred = x - x.mean(axis=0, dtype=np.float64)
    u, singular, axes = np.linalg.svd(centred, full_matrices=False)
    variances = singular**2 / len(x)
    by_hand = u * singular / np.sqrt(variances + s * variances.mean()) @ axes
    whiten = fit_whitening(x, s)
    np.testing.assert_allclose(whiten(x), by_hand, atol=1e-5)
    np.testing.assert_allclose(whiten.matrix, whiten.matrix.T, atol=1e-12)
    copy = x.copy()
    assert whiten(copy, in_place=True) is copy and (copy == whiten(x)).all()


def test_without_shrinkage_it_is_the_whitened_pca_rotated():
    x = features()
    ours, theirs = fit_whitening(x, 0.0)(x), PCA(whiten=True).fit_transform(x.astype(np.float64))
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T * len(x) / (len(x) - 1), atol=2e-3)
    np.testing.assert_allclose(np.cov(ours.T, bias=True), np.eye(12), atol=1e-5)


def test_few_rows_are_whitened():
    whiten = fit_whitening(features(rows=6))
    for x in (features(rows=6), features(rows=50, seed=1)):  # those, and unseen ones
        assert np.isfinite(whiten(x)).all()
    assert np.abs(whiten(features(rows=6))).max() < 3


def test_features_that_do_not_vary_are_left():
    x = np.full((50, 8), 0.7, np.float32)
    assert fit_whitening(x) is None
    noise = x * (1 + np.random.default_rng(0).choice([0, 2**-24], x.shape)).astype(np.float32)
    assert fit_whitening(noise) is None
    partly = np.concatenate([x, features(50, 4)], axis=1)  # eight features are dead
    assert np.isfinite(fit_whitening(partly)(partly)).all()


@pytest.mark.parametrize(("rows", "shrinkage"), [(5000, 0.1), (1000, 0.1), (200, 0.5), (50, 2.0), (20, 3.0)])
def test_few_images_get_more_shrinkage(rows, shrinkage):
    x = features(rows, width=100)
    assert finishing.chosen_shrinkage(x) == fit_whitening(x).shrinkage == shrinkage
    assert finishing.chosen_shrinkage(x, finishing.PIXEL_SHRINKAGE) == 3.0


def test_few_images_stay_unequally_far_from_each_other():
    """Two clusters of 20 images in 200 dimensions: with little shrinkage all cosines would be about equal."""
    rng = np.random.default_rng(0)
    cluster = np.repeat([0, 1], 20)
    x = (rng.normal(size=(40, 200)) + 0.5 * rng.normal(size=(2, 200))[cluster]).astype(np.float32)
    np.fill_diagonal(same := cluster[:, None] == cluster, False)
    contrasts = []
    for shrinkage in (None, 0.01):
        unit = fit_whitening(x, shrinkage)(x)
        cosines = (unit := unit / np.linalg.norm(unit, axis=1, keepdims=True)) @ unit.T
        contrasts.append(cosines[same].mean() - cosines[cluster[:, None] != cluster].mean())
    assert contrasts[0] > 2 * contrasts[1]


def small(seed=0):
    keras.utils.set_random_seed(seed)
    return nets.resnet10("small", width=0.125, channels=1)


def images(count=40):
    return from_arrays("images", np.random.default_rng(0).integers(0, 256, (count, 16, 16, 1), np.uint8))


VIEWS = Views(Augmentation(size=16, mean=(0.5,), std=(0.5,)))


def means_of_quarters(maps):
    """[B, h, w, F] → [B, 4 F]: by rows, then columns; the middle of an odd side belongs to both halves."""
    low, high = ([slice(0, -(-n // 2)), slice(n // 2, n)] for n in maps.shape[1:3])
    return np.concatenate([maps[:, r, c].mean((1, 2)) for r in low for c in high], axis=-1)


@pytest.mark.parametrize(("size", "sides"), [(64, (4, 8)), (40, (3, 5)), (17, (2, 3)), (16, (1, 2))])
def test_quarters_are_means_of_parts_of_the_last_maps(size, sides):
    backbone = small()
    x = np.random.default_rng(1).normal(size=(3, size, size, 1)).astype(np.float32)
    names = ("stage4_block1_relu", "stage3_block1_relu")
    maps = keras.Model(backbone.inputs, [backbone.get_layer(n).output for n in names])(x)
    assert tuple(m.shape[1] for m in maps) == sides
    parts = [m.numpy().mean((1, 2)) if m.shape[1] == 1 else means_of_quarters(m.numpy()) for m in maps]
    found = read_quarters(backbone, size)(x, training=False)
    np.testing.assert_allclose(found, np.concatenate(parts, axis=1), atol=1e-5)


def test_there_are_at_most_so_many_quarters(monkeypatch):
    backbone = small()  # whose last maps have 64 and 32 channels
    assert read_quarters(backbone, 64).output_shape == (None, 4 * 96)
    monkeypatch.setattr(whitening, "MAX_FEATURES", 4 * 96 - 1)
    assert read_quarters(backbone, 64).output_shape == (None, 4 * 64)
    monkeypatch.setattr(whitening, "MAX_FEATURES", 4 * 64 - 1)
    assert read_quarters(backbone, 64) is backbone
    monkeypatch.undo()
    assert read_quarters(backbone, 8) is backbone  # both maps have one pixel
    maximum = keras.layers.GlobalMaxPooling2D()(backbone.layers[-2].output)
    other = keras.Model(backbone.inputs, maximum)
    assert read_quarters(other, 64) is other


def of_another_library(name, **options):
    keras.utils.set_random_seed(0)
    network = getattr(keras.applications, name)
    return network(weights=None, include_top=False, pooling="avg", input_shape=(None, None, 3), **options)


@pytest.mark.parametrize(
    ("name", "options", "layers"),
    [
        # Sums of residual blocks; the wide last convolution is not read.
        ("MobileNetV2", {"alpha": 0.35}, ("block_15_add", "block_12_add")),
        pytest.param("EfficientNetB0", {}, ("block6d_add", "block5c_add"), marks=pytest.mark.slow),
        ("VGG16", {}, ("block5_pool",)),  # it has no residual blocks; a second map would be too wide
    ],
)
def test_networks_of_others_are_read_at_their_last_residual_blocks(name, options, layers):
    network = of_another_library(name, **options)
    x = np.random.default_rng(0).normal(size=(2, 96, 96, 3)).astype(np.float32)
    maps = [keras.Model(network.input, network.get_layer(layer).output)(x).numpy() for layer in layers]
    read = read_quarters(network, 96)
    np.testing.assert_allclose(
        read(x), np.concatenate([means_of_quarters(m) for m in maps], axis=1), atol=1e-5
    )
    assert read_quarters(network, 96).output_shape == read.output_shape, "it is read once more"


def test_a_residual_block_that_is_one_layer_is_read():
    class Block(keras.layers.Layer):
        def __init__(self, channels, stride, **options):
            super().__init__(**options)
            self.inner = keras.layers.Conv2D(channels, 3, stride, "same")

        def call(self, x):
            return self.inner(x)

        def compute_output_shape(self, shape):
            return self.inner.compute_output_shape(shape)

    images = keras.Input((None, None, 3))
    first = Block(8, 1)(Block(8, 2)(images))
    second = Block(16, 1)(Block(16, 2)(first))
    x = keras.layers.Conv2D(700, 1)(Block(24, 1)(second))  # two layers that change the width are none
    network = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    assert [m is block for m, block in zip(whitening._last_maps(network), (second, first), strict=True)]
    assert read_quarters(network, 32).output_shape == (None, 4 * (8 + 16))


def test_a_network_in_one_layer_is_read_at_its_last_maps():
    inner = of_another_library("MobileNetV2", alpha=0.35)
    inner = keras.Model(inner.input, inner.get_layer("block_16_project_BN").output)
    images = keras.Input((None, None, 3))
    outer = keras.Model(images, keras.layers.GlobalAveragePooling2D()(inner(images)))
    x = np.random.default_rng(0).normal(size=(2, 96, 96, 3)).astype(np.float32)
    expected = means_of_quarters(inner(x).numpy())
    np.testing.assert_allclose(read_quarters(outer, 96)(x), expected, atol=1e-5)
    wide = of_another_library("ResNet50V2")
    assert read_quarters(wide, 96) is wide, "of 2,048 channels quarters would be too many"


@pytest.mark.parametrize("size", [pytest.param(16, marks=pytest.mark.slow), 8])
def test_the_layers_give_whitened_features_and_come_off(size):
    backbone, source = small(), images()
    views = finishing.reading_views(VIEWS, size)
    plain = extract(backbone, source, views)
    read = extract(read_quarters(backbone, size), source, views)
    whole, whiten = finishing.finish_backbone(backbone, source, views, seed=0)
    assert reads_quarters(whole) == (size == 16)
    expected = whiten(read)
    np.testing.assert_allclose(extract(whole, source, views), expected, atol=1e-5 * np.abs(expected).max())
    pooled = without_whitening(whole)
    assert (extract(pooled, source, views) == plain).all()
    assert [v.path for v in pooled.weights] == [v.path for v in backbone.weights]
    assert without_whitening(pooled) is pooled and whitening_layer(pooled) is None
    classifier = keras.Model(backbone.input, keras.layers.Dense(3, name="head")(backbone.output))
    assert without_whitening(classifier) is classifier
    assert finish_like(classifier, backbone, size) is backbone


@pytest.mark.slow
def test_a_finished_network_is_made_for_another_size():
    backbone, source = small(), images()
    views = {size: finishing.reading_views(VIEWS, size) for size in (32, 45)}
    whole, whiten = finishing.finish_backbone(backbone, source, views[32], seed=0)
    larger = finish_like(whole, backbone, 45)
    expected = whiten(extract(read_quarters(backbone, 45), source, views[45]))
    np.testing.assert_allclose(
        extract(larger, source, views[45]), expected, atol=1e-5 * np.abs(expected).max()
    )
    with pytest.raises(ValueError, match="192 features are read, of which 384 can be whitened"):
        finish_like(whole, backbone, 16)


@pytest.mark.parametrize(("size", "read"), [(8, 16), (28, 56), (32, 64), (48, 64), (64, 64), (224, 224)])
def test_small_images_are_read_larger(size, read):
    assert finishing.default_read_size(size) == read


def test_a_collapsed_backbone_stays_as_it_is():
    backbone = small()
    for variable in backbone.weights:
        if variable.name == "gamma":
            variable.assign(variable * 0)
    assert finishing.finish_backbone(backbone, images(), VIEWS, seed=0) == (backbone, None)


def test_the_images_are_drawn_by_the_seed(monkeypatch):
    monkeypatch.setattr(finishing, "FITTED_IMAGES", 20)
    means = [finishing.finish_backbone(small(), images(), VIEWS, seed)[1].mean for seed in (0, 0, 1)]
    assert (means[0] == means[1]).all() and (means[0] != means[2]).any()


def test_features_of_a_bfloat16_backbone_are_whitened_in_float32():
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        backbone = small()
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    source, exact = images(), small()
    exact.set_weights(backbone.get_weights())
    _, whiten = finishing.finish_backbone(backbone, source, VIEWS, seed=0)
    expected = fit_whitening(extract(read_quarters(exact, 16), source, VIEWS))
    np.testing.assert_allclose(whiten.matrix, expected.matrix, rtol=1e-3, atol=1e-3 * expected.matrix.max())
    assert {layer.dtype_policy.name for layer in backbone.layers} == {"mixed_bfloat16"}


@pytest.mark.slow
def test_stock_keras_opens_a_whitened_file_and_the_helper_takes_the_layer_off(tmp_path):
    backbone, source = small(), images()
    whole, _ = finishing.finish_backbone(backbone, source, VIEWS, seed=0)
    path = backbone_file.export_network(whole, tmp_path, {})
    x = np.random.default_rng(1).normal(size=(4, 16, 16, 1)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, numpy as np, keras\n"
        "model = keras.saving.load_model(sys.argv[1])\n"
        "assert type(model.get_layer('whitening')) is keras.layers.Dense\n"
        "np.save(sys.argv[3], model(np.load(sys.argv[2])))\n"
        "assert 'simsiam_tf' not in sys.modules"
    )
    files = [str(path), str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    subprocess.run([sys.executable, "-c", code, *files], check=True, cwd=tmp_path)
    expected = whole(x, training=False).numpy()
    np.testing.assert_allclose(np.load(files[2]), expected, atol=1e-4 * np.abs(expected).max())
    opened = backbone_file.load_backbone(tmp_path)
    assert all((a == b).all() for a, b in zip(opened.get_weights(), backbone.get_weights(), strict=True))
    finished = backbone_file.load_backbone(tmp_path, finished=True)
    np.testing.assert_allclose(finished(x, training=False), expected, atol=1e-4 * np.abs(expected).max())


def test_the_whitening_computes_in_float32_under_another_policy(tmp_path):
    whole, _ = finishing.finish_backbone(small(), images(), VIEWS, seed=0)
    backbone_file.export_network(whole, tmp_path, {})
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        opened = backbone_file.load_backbone(tmp_path, finished=True)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    names = {layer.name: layer.dtype_policy.name for layer in opened.layers}
    assert names["whitening"] == "float32" and names["stem_conv"] == "mixed_bfloat16"


def test_pixels_are_averaged_before_they_are_whitened():
    assert finishing.pixel_side(28, 1) == 28
    assert finishing.pixel_side(48, 3) == 32
    assert finishing.pixel_side(64, 3) == 32
