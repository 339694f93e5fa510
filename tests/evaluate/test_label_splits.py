"""Which labelled images are trained on, and which are tested on."""

import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf.evaluate.label_splits import balanced, open_splits
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
