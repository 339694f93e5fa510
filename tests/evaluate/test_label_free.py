"""The judge without labels: retrieval by hand, a sample by the seed, raw pixels at any size."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import small_backbones
from PIL import Image

from simsiam_tf.data import AUGMENTATIONS, Views, from_arrays
from simsiam_tf.evaluate import finishing, label_free
from simsiam_tf.evaluate.label_free import LabelFreeMonitor, retrieval
from simsiam_tf.features import extraction
from simsiam_tf.pretrained.pretrained_backbone import open_pretrained
from simsiam_tf.runtime.errors import UserError


def monitor_of(size, count=30, channels=3, **options):
    images = np.random.default_rng(0).integers(0, 256, [count, size, size, channels], np.uint8)
    views = Views(dataclasses.replace(AUGMENTATIONS["cifar"], size=size))
    return LabelFreeMonitor(from_arrays("noise", images), views, **options)


def test_retrieval_by_hand():
    at = lambda *degrees: np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], 1)  # noqa: E731
    gallery = at(0, 90, 180, 270)  # its mean is 0
    # 0 and 1 find their own; 100 finds 90 before 180; 30 finds 0, 90, 270 or 180: 270 is third.
    found = retrieval(gallery, at(10, 80, 100, 30))
    assert found == {"recall1": pytest.approx(2 / 4), "mrr": pytest.approx((1 + 1 + 1 / 2 + 1 / 3) / 4)}
    assert retrieval(gallery + 5, at(10, 80, 100, 30) + 5)["mrr"] == pytest.approx(found["mrr"], rel=1e-5)


def test_the_same_features_find_themselves_and_shuffled_ones_by_chance():
    features = np.random.default_rng(0).normal(size=(500, 40))
    assert retrieval(features, features) == {"recall1": 1, "mrr": 1}
    shuffled = retrieval(features, np.random.default_rng(1).permutation(features))
    assert shuffled["recall1"] < 5 / 500
    harmonic = (1 / np.arange(1, 501)).sum() / 500  # mean of 1 / rank over all ranks
    assert shuffled["mrr"] == pytest.approx(harmonic, rel=0.5)


def test_features_that_tell_nothing_apart_find_one_in_all():
    same = np.full([50, 8], 3.0)
    assert retrieval(same, same)["recall1"] == pytest.approx(1 / 50)
    lost = np.full([50, 8], np.nan)
    assert retrieval(lost, lost)["recall1"] == pytest.approx(1 / 50)
    pairs = np.repeat(np.random.default_rng(0).normal(size=(25, 8)), 2, axis=0)  # each image twice
    assert retrieval(pairs, pairs) == {"recall1": pytest.approx(1 / 2), "mrr": pytest.approx(2 / 3)}


@pytest.mark.parametrize(("size", "width"), [(8, 8 * 8 * 3), (48, 768), (224, 768)])
def test_raw_pixels_answer_at_any_size(size, width):
    monitor = monitor_of(size, count=12)
    pixels = lambda x: extraction.small_pixels(monitor.views.denormalise(x))  # noqa: E731
    gallery, queries = monitor.features(pixels)
    assert gallery.shape == queries.shape == (12, width) and 0 <= gallery.min() < gallery.max() <= 1
    whole = np.stack([monitor.views.evaluation_view(tf.constant(i)) for i in monitor.source.images])
    if size > 16:
        bilinear = Image.Resampling.BILINEAR
        small = np.stack([np.asarray(Image.fromarray(x).resize((16, 16), bilinear)) for x in whole])
        np.testing.assert_allclose(gallery, small.reshape(12, -1) / 255, atol=1.5 / 255)
    if size == 8:
        np.testing.assert_allclose(gallery, whole.reshape(12, -1) / 255, atol=1e-6)


def test_raw_pixels_of_large_images_are_shrunk_for_knn_too():
    for size, width in ((64, 64 * 64 * 3), (96, 768)):
        monitor = monitor_of(size, count=4)
        rows = extraction.raw_pixels(monitor.source, monitor.views)
        assert rows.shape == (4, width) and 0 <= rows.min() < rows.max() <= 1


def test_sample_and_queries_follow_from_the_seed(monkeypatch):
    monkeypatch.setattr(label_free, "IMAGES", 10)
    one, again, other = monitor_of(8), monitor_of(8), monitor_of(8, seed=1)
    ids = one.sample()
    assert len(set(ids)) == 10 == one.size() and (np.diff(ids) > 0).all() and ids.max() < 30
    assert (ids == again.sample()).all() and (ids != other.sample()).any()
    assert len(one.sample(4)) == 4 and monitor_of(8, count=7).size() == 7

    encode = lambda x: tf.reshape(x, [len(x), -1])  # noqa: E731
    whole = one.features(encode)
    monkeypatch.setattr(extraction, "default_batch", lambda *_: 3)
    for a, b in zip(whole, again.features(encode), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (whole[1] != other.features(encode)[1]).any()
    rows = one.views.normalise(one.source.images[ids]).numpy().reshape(10, -1)
    np.testing.assert_array_equal(whole[0], rows)


@pytest.mark.slow
def test_a_work_folder_is_judged_beside_its_baselines(tmp_path):
    augmentation = dataclasses.replace(AUGMENTATIONS["cifar"], size=16)
    small_backbones.exported(tmp_path, augmentation, channels=3)
    images = np.random.default_rng(0).integers(0, 256, [40, 16, 16, 3], np.uint8)
    found = label_free.judge(tmp_path, from_arrays("noise", images))
    assert list(found) == ["raw pixels", "untrained backbone", "backbone"]
    for measures in found.values():
        assert list(measures) == ["recall1", "mrr", "rankme", "alpha_req", "lidar"]
        assert all(np.isfinite(v) for v in measures.values()) and 0 <= measures["recall1"] <= 1
    assert found["backbone"] != found["untrained backbone"]
    assert found == label_free.judge(tmp_path, from_arrays("noise", images))
    with pytest.raises(UserError, match="channels"):
        label_free.judge(tmp_path, from_arrays("gray", images[..., :1]))

    # Beside a backbone that whitens its features, those of the others are whitened, too.
    source, pretrained = from_arrays("noise", images), open_pretrained(tmp_path)
    finished, _ = finishing.finish_backbone(pretrained.backbone, source, pretrained.views, 0)
    measures = label_free.judge(dataclasses.replace(pretrained, backbone=finished), source)
    monitor = LabelFreeMonitor(source, pretrained.views)
    pixels = monitor.baselines(pretrained.backbone, read_size=16)["raw pixels"]
    assert measures["raw pixels"]["recall1"] == pixels["whitened_recall1"]
    assert measures["backbone"]["recall1"] == pytest.approx(
        monitor.backbone_accuracy(pretrained.backbone, read_size=16)["whitened_recall1"], abs=0.03
    )


def test_whitened_features_are_those_of_the_size_at_which_they_are_read(monkeypatch):
    """The mean of a view is loud and tells nothing of its image; a quiet number does."""
    monitor = monitor_of(8)
    sizes, rng = [], np.random.default_rng(0)

    def features(self, encode, images):
        sizes.append(self.views.augmentation.size)
        quiet = rng.standard_normal([50, 24])
        loud = [10 * rng.standard_normal([50, 1]) for _ in range(2)]
        return tuple(np.hstack([x, quiet]).astype(np.float32) for x in loud)

    monkeypatch.setattr(LabelFreeMonitor, "features", features)
    backbone = keras.Sequential([keras.Input([None, None, 3]), keras.layers.GlobalAveragePooling2D()])
    accuracy = monitor.backbone_accuracy(backbone, 50, read_size=16)
    assert sizes == [8, 16]
    assert accuracy["recall1"] < 0.5 < 0.9 < accuracy["whitened_recall1"]
    assert "whitened_recall1" not in monitor.backbone_accuracy(backbone, 50)
