"""TFDS sets of unusual features: labels that are no class, images that are arrays."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

tfds = pytest.importorskip("tensorflow_datasets")
from simsiam_tf.data import open_source
from simsiam_tf.data.sources.base import ArraySource
from simsiam_tf.runtime.errors import UserError

HERE = Path(__file__).parent  # where TFDS looks for descriptions; it would look for a package
F = tfds.features
PNG = F.Image(shape=(None, None, 3), encoding_format="png")


def prepared(path, form="array_record", n=6, **features):
    """Prepares a set of features, name=(feature, value of the i-th example), whose code is not registered."""

    class Made(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name, VERSION, pkg_dir_path = "made", tfds.core.Version("1.0.0"), HERE

        def _info(self):
            kinds = F.FeaturesDict({name: feature for name, (feature, _) in features.items()})
            return self.dataset_info_from_configs(features=kinds)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(n):
                yield i, {name: value(i) for name, (_, value) in features.items()}

    Made(data_dir=str(path), file_format=form).download_and_prepare()
    return str(path)


def image_of(source, i) -> np.ndarray:
    return source.decode(tf.constant(i, tf.int64)).numpy()


def coloured(i):
    return np.full([5 + i, 7, 3], 20 * i, np.uint8)


@pytest.mark.parametrize("form", ["array_record", "tfrecord"])
@pytest.mark.parametrize(
    "label",
    [
        (F.Scalar(np.int64), lambda i: i % 2),
        (F.Scalar(np.float32), lambda i: i / 2),
        (F.Text(), str),
        (F.Sequence(F.ClassLabel(names=["a", "b"])), lambda i: [0, 1][: i % 3]),
        (F.Tensor(shape=(2,), dtype=np.int64), lambda i: [i, i]),
    ],
    ids=["number", "share", "text", "classes", "numbers"],
)
def test_labels_that_are_no_class_are_left_out(tmp_path, label, form):
    path = prepared(tmp_path, form, image=(PNG, coloured), label=label)
    source = open_source("tfds:made", data_dir=path)
    assert source.labels is None and source.class_names == () and source.size == 6
    assert {int(image_of(source, i)[0, 0, 0]) for i in range(6)} == {20 * i for i in range(6)}
    assert {image_of(source, i).shape[0] for i in range(6)} == {5 + i for i in range(6)}


def test_labels_that_are_no_class_are_left_out_in_memory_too(tmp_path):
    fixed = F.Image(shape=(5, 7, 3), encoding_format="png")
    path = prepared(tmp_path, image=(fixed, lambda i: coloured(0)), label=(F.Text(), str))
    source = open_source("tfds:made", data_dir=path)
    assert isinstance(source, ArraySource) and source.labels is None and source.class_names == ()


def test_classes_without_names_are_numbered(tmp_path):
    path = prepared(tmp_path, image=(PNG, coloured), label=(F.ClassLabel(num_classes=3), lambda i: i % 3))
    source = open_source("tfds:made", data_dir=path)
    assert source.class_names == ("0", "1", "2")
    assert [source.labels[i] for i in range(6)] == [image_of(source, i)[0, 0, 0] // 20 % 3 for i in range(6)]


@pytest.mark.parametrize(
    "image",
    [
        (F.Text(), str),
        (F.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format="png"),
         lambda i: np.zeros([4, 4, 1], np.uint16)),
        (F.Tensor(shape=(4, 4, 3), dtype=np.float32), lambda i: np.zeros([4, 4, 3], np.float32)),
        (F.Sequence(F.Image(shape=(4, 4, 3), encoding_format="png")),
         lambda i: [np.zeros([4, 4, 3], np.uint8)] * 2),
    ],
    ids=["text", "16 bits", "floats", "several"],
)  # fmt: skip
def test_an_image_feature_of_another_type_is_refused(tmp_path, image):
    path = prepared(tmp_path, n=2, image=image)
    with pytest.raises(UserError, match="'image' has to be an image of 8 bits a channel. Received: "):
        open_source("tfds:made", data_dir=path)


def test_an_array_of_bytes_is_an_image(tmp_path):
    array = F.Tensor(shape=(4, 5, 3), dtype=np.uint8)
    path = prepared(tmp_path, n=3, image=(array, lambda i: np.full([4, 5, 3], i, np.uint8)))
    assert sorted(open_source("tfds:made", data_dir=path).images[:, 0, 0, 0]) == [0, 1, 2]
