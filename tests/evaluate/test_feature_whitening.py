"""Whitening: equal to NumPy's and scikit-learn's, safe where features are few or collapsed, a Dense layer."""

import subprocess
import sys

import keras
import numpy as np
from sklearn.decomposition import PCA

from simsiam_tf import nets
from simsiam_tf.data import Augmentation, Views, from_arrays
from simsiam_tf.evaluate import finishing
from simsiam_tf.evaluate.finishing import fit_whitening
from simsiam_tf.features import extract
from simsiam_tf.nets.whitening import whitening_layer, without_whitening
from simsiam_tf.pretrained import backbone_file


def features(rows=500, width=12, seed=0):
    """Features of correlated directions, far from 0."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, width)) @ rng.normal(size=(width, width)) + 5).astype(np.float32)


def test_whitening_is_the_formula(monkeypatch):
    monkeypatch.setattr(finishing, "BLOCK", 100)  # several blocks
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


def test_few_rows_are_whitened_less():
    assert finishing.default_shrinkage(10_000, 256) == finishing.SHRINKAGE
    x = features(rows=6)
    whiten = fit_whitening(x)
    assert whiten.shrinkage == 12 / 6
    assert np.isfinite(whiten(x)).all() and np.abs(whiten(x)).max() < 3
    unseen = whiten(features(rows=50, seed=1))
    assert np.isfinite(unseen).all()


def test_crops_choose_the_shrinkage():
    rng = np.random.default_rng(0)
    large, small = rng.normal(size=(400, 2)) * 10, rng.normal(size=(400, 10))
    noise = rng.normal(size=(400, 10)), rng.normal(size=(400, 2)) * 10

    def chosen(crops):
        return fit_whitening(np.hstack([large, small]), pairs=(np.hstack([large, small]), crops)).shrinkage

    # The image shows in the ten directions of small variance, the crop changes the two of large variance.
    assert chosen(np.hstack([noise[1], small])) == min(finishing.SHRINKAGES)
    assert chosen(np.hstack([large, noise[0]])) == max(finishing.SHRINKAGES)


def test_pairs_are_of_the_same_images():
    source = images(600)
    shown, crops = finishing.crop_pairs(lambda x: x.numpy().reshape(len(x), -1), source, VIEWS, seed=1)
    assert shown.shape == crops.shape == (512, 256)  # two whole batches
    everything = VIEWS.normalise(source.images).numpy().reshape(600, -1)
    rows = [int(np.flatnonzero((everything == row).all(axis=1))[0]) for row in shown]
    assert len(set(rows)) == 512 and (shown != crops).any(axis=1).all()
    smooth = np.broadcast_to(np.arange(600).astype(np.uint8)[:, None, None, None], (600, 16, 16, 1)).copy()
    plain = from_arrays("plain", smooth)
    shown, crops = finishing.crop_pairs(lambda x: x.numpy().mean(axis=(1, 2)), plain, VIEWS, 1)
    np.testing.assert_allclose(shown, crops, atol=1e-5)  # a crop of a plain image is that image


def test_features_that_do_not_vary_are_left():
    x = np.full((50, 8), 0.7, np.float32)
    assert fit_whitening(x) is None
    noise = x * (1 + np.random.default_rng(0).choice([0, 2**-24], x.shape)).astype(np.float32)
    assert fit_whitening(noise) is None
    partly = np.concatenate([x, features(50, 4)], axis=1)  # eight features are dead
    assert np.isfinite(fit_whitening(partly)(partly)).all()


def small(seed=0):
    keras.utils.set_random_seed(seed)
    return nets.resnet10("small", width=0.125, channels=1)


def images(count=40):
    return from_arrays("images", np.random.default_rng(0).integers(0, 256, (count, 16, 16, 1), np.uint8))


VIEWS = Views(Augmentation(size=16, mean=(0.5,), std=(0.5,)))


def test_the_layer_gives_whitened_features_and_comes_off():
    backbone, source = small(), images()
    plain = extract(backbone, source, VIEWS)
    whole, whiten = finishing.finish_backbone(backbone, source, VIEWS, seed=0)
    np.testing.assert_allclose(extract(whole, source, VIEWS), whiten(plain), atol=1e-5)
    beneath = without_whitening(whole)
    assert (extract(beneath, source, VIEWS) == plain).all()
    assert [v.path for v in beneath.weights] == [v.path for v in backbone.weights]
    assert without_whitening(beneath) is beneath and whitening_layer(beneath) is None
    classifier = keras.Model(backbone.input, keras.layers.Dense(3, name="head")(backbone.output))
    assert without_whitening(classifier) is classifier


def test_a_collapsed_backbone_stays_as_it_is():
    backbone = small()
    for variable in backbone.weights:
        if variable.name == "gamma":
            variable.assign(variable * 0)
    assert finishing.finish_backbone(backbone, images(), VIEWS, seed=0) == (backbone, None)


def test_the_images_are_drawn_by_the_seed(monkeypatch):
    monkeypatch.setattr(finishing, "IMAGES", 20)
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
    expected = fit_whitening(extract(exact, source, VIEWS), whiten.shrinkage)
    np.testing.assert_allclose(whiten.matrix, expected.matrix, rtol=1e-3, atol=1e-3 * expected.matrix.max())
    assert {layer.dtype_policy.name for layer in backbone.layers} == {"mixed_bfloat16"}


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
