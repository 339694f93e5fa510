"""Which labelled images are trained on, and which are tested on."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf.data import Augmentation, Views, from_arrays, open_source
from simsiam_tf.evaluate import knn_monitor, label_splits
from simsiam_tf.evaluate.knn_monitor import monitor_of
from simsiam_tf.evaluate.label_splits import balanced, held_out_ids, open_splits
from simsiam_tf.runtime.errors import UserError


def folder(root, **classes):
    """A folder of class folders: so many images each, of different greys."""
    shade = iter(range(256))
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            picture = np.full([4, 4, 3], next(shade), np.uint8)
            (root / name / f"{i:03}.png").write_bytes(tf.io.encode_png(picture).numpy())
    return f"folder:{root}"


def shades(source):
    return {int(source.decode(tf.constant(i, tf.int64))[0, 0, 0]) for i in range(source.size)}


def test_a_set_with_a_test_split_uses_it():
    splits = open_splits("digits")
    assert (splits.train.size, splits.test.size, splits.classes) == (1437, 360, 10)


def test_a_folder_holds_every_tenth_image_out(tmp_path):
    splits = open_splits(folder(tmp_path, cat=15, dog=10))
    assert shades(splits.test) == {0, 10, 20} and not shades(splits.test) & shades(splits.train)
    assert shades(splits.train) | shades(splits.test) == set(range(25))
    assert splits.test.labels[:].tolist() == [0, 0, 1] and splits.class_names == ("cat", "dog")


@pytest.mark.parametrize(("split", "count"), [("test", 360), ("test[:50]", 50), ("test[-7:]", 7)])
def test_images_of_the_test_split_are_not_trained_and_tested_on(split, count, capsys):
    splits, every = open_splits(f"digits:{split}"), open_source(f"digits:{split}").images
    assert capsys.readouterr().err == (
        f"digits:{split}: has images of the split 'test', which would be the test: every 10th image is "
        "held out for the test instead\n"
    )
    np.testing.assert_array_equal(splits.test.images, every[::10])
    np.testing.assert_array_equal(splits.train.images, np.delete(every, np.s_[::10], axis=0))
    assert splits.train.size + splits.test.size == count
    assert open_splits("digits:train[:50]").test.size == 360 and not capsys.readouterr().err


def test_a_monitor_by_images_of_the_test_split_holds_some_out(capsys):
    monitor = monitor_of("digits:test[:50]")
    assert monitor.queries is monitor.bank and monitor.query_ids.tolist() == [0, 10, 20, 30, 40]
    assert not set(monitor.bank_ids) & set(monitor.query_ids)
    assert capsys.readouterr().err.startswith("digits:test[:50]: has images of the split 'test'")


@pytest.mark.parametrize(
    ("spec", "held_out"),
    [
        ("tfds:a/b:test", True), ("tfds:a:train+test[:10%]", True), ("tfds:a:all", True),
        ("hf:a/b:test", True), ("hf:a/b:train[:5] + test[-5:]", True), ("cifar10", False),
        ("tfds:a:train[:10%]", False),
        ("tfds:a", False), ("hf:a/b:validation", False), ("hf:a/b", False),
    ],
)  # fmt: skip
def test_splits_of_any_set_that_are_the_test(spec, held_out, monkeypatch):
    test = open_source("digits:test")
    monkeypatch.setattr(label_splits, "open_source", lambda *_: test)
    assert label_splits.open_test_split(spec, test) is (None if held_out else test)


def test_where_the_test_split_withholds_labels_images_of_the_validation_split_are_held_out(monkeypatch):
    digits = open_source("digits:test")
    withheld = dataclasses.replace(digits, labels=np.full(digits.size, -1))
    splits = {"test": withheld, "validation": digits}
    monkeypatch.setattr(label_splits, "open_source", lambda _, split: splits[split])
    assert label_splits.open_test_split("imagenet2012", digits) is digits
    assert label_splits.open_test_split("tfds:imagenet2012:validation[:50]", digits) is None


@pytest.mark.parametrize("shared", [False, True])
def test_a_list_that_names_images_for_training_and_test(tmp_path, shared, capsys):
    folder(tmp_path, cat=15, dog=10)
    files = [(f"{name}/{i:03}.png", name) for name, count in (("cat", 15), ("dog", 10)) for i in range(count)]
    rows = [f"{file},{name},{'test' if i % 5 == 0 else 'train'}" for i, (file, name) in enumerate(files)]
    rows += ["cat/000.png,cat,train"] * shared
    (tmp_path / "all.csv").write_text("\n".join(["path,label,split", *rows]))
    splits = open_splits(f"list:{tmp_path}/all.csv")
    assert not shades(splits.train) & shades(splits.test)
    assert (splits.train.size, splits.test.size) == ((18, 3) if shared else (20, 5))
    assert ("has images of the split 'test'" in capsys.readouterr().err) == shared


@pytest.mark.parametrize(
    ("train", "test", "named"),
    [
        ({"cat": 2, "dog": 2}, {"cat": 1, "horse": 1}, "2 are in one only, such as dog"),
        ({"cat": 2, "dog": 2}, {"cat": 2}, "has no labels"),
    ],
)
def test_splits_of_different_classes_are_refused(tmp_path, train, test, named):
    a, b = folder(tmp_path / "a", **train), folder(tmp_path / "b", **test)
    with pytest.raises(UserError, match=named):
        open_splits(a, b)


def test_channels_must_agree(tmp_path):
    colour = folder(tmp_path, **{str(i): 1 for i in range(10)})
    with pytest.raises(UserError, match="has 3 channels, digits:train 1"):
        open_splits("digits", colour)


def test_a_share_of_every_class_and_a_larger_share_contains_a_smaller():
    labels = np.repeat([0, 1, 2], [100, 1000, 3])
    few, more = balanced(labels, 0.01), balanced(labels, 0.1)
    assert np.bincount(labels[few]).tolist() == [1, 10, 1]
    assert np.bincount(labels[more]).tolist() == [10, 100, 1]
    assert set(few) < set(more) and few.tolist() == balanced(labels, 0.01).tolist()
    assert few.tolist() != balanced(labels, 0.01, seed=1).tolist()
    np.testing.assert_array_equal(balanced(labels, 1.0), np.arange(len(labels)))


@pytest.mark.parametrize(("classes", "images"), [(10, 500), (2, 100), (5, 999)])
def test_classes_that_take_turns_are_trained_and_tested_on(classes, images):
    """Every tenth image of ten classes in turn would be the first class alone, and of two, too."""
    labels = np.arange(images) % classes
    source = from_arrays("turns", np.zeros((images, 4, 4, 3), np.uint8), labels)
    train, test = held_out_ids(source)
    assert set(labels[train]) == set(labels[test]) == set(range(classes))
    assert sorted([*train, *test]) == list(range(images)) and len(test) == pytest.approx(
        images / 10, abs=classes
    )


def test_a_class_of_one_image_is_trained_on():
    labels = np.append(np.arange(500) % 10, 10)
    train, test = held_out_ids(from_arrays("turns", np.zeros((501, 4, 4, 3), np.uint8), labels))
    assert 500 in train and set(labels[test]) == set(range(10))


@pytest.mark.parametrize("count", [1, 7, 38_888, 60_000, 10**6])
def test_a_sample_has_as_many_images_as_it_says(count):
    sample = knn_monitor._evenly_spaced(np.arange(60_000), count)
    assert len(sample) == len(set(sample)) == min(count, 60_000)
    assert np.ptp(np.diff(sample)) <= 1 if count > 1 else sample == [0]


def test_queries_of_images_without_labels_are_refused(tmp_path):
    images = from_arrays("plain", np.zeros((20, 8, 8, 1), np.uint8))
    with pytest.raises(
        UserError, match="monitor_queries=digits:test: the images to learn from have no labels"
    ):
        knn_monitor.open_monitor("auto", "digits:test", Views(Augmentation(size=8)), images, "plain")
