"""TFDS sets, built here and offline: fixed shapes go to memory, variable ones are read at random."""

import logging
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

tfds = pytest.importorskip("tensorflow_datasets")
from simsiam_tf.data import Augmentation, Views, open_source
from simsiam_tf.data.pipeline import StepBatches
from simsiam_tf.data.sources import tfds_sets
from simsiam_tf.data.sources.base import ArraySource, EncodedSource
from simsiam_tf.runtime.errors import UserError

CLASSES = ["ant", "bee", "cow"]
VERSION = tfds.core.Version("1.0.0")
HERE = Path(__file__).parent  # where TFDS looks for descriptions; it would look for a package


def images(split: str, variable: bool) -> list[np.ndarray]:
    rng = np.random.default_rng(len(split))
    n = {"train": 23, "test": 9}[split]
    sides = rng.integers(5, 20, [n, 2]) if variable else [(6, 7)] * n
    return [rng.integers(0, 256, [*side, 3], np.uint8) for side in sides]


class TinyFixed(tfds.core.GeneratorBasedBuilder):
    """Images of one size, with labels."""

    VERSION = VERSION
    pkg_dir_path = HERE
    SHAPE = (6, 7, 3)

    def _info(self):
        features = {"image": tfds.features.Image(shape=self.SHAPE, encoding_format="png")}
        features["label"] = tfds.features.ClassLabel(names=CLASSES)
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split):
        for i, image in enumerate(images(split, None in self.SHAPE)):
            yield i, {"image": image, "label": i % 3}


class TinyVariable(TinyFixed):
    """Images of many sizes, with labels."""

    VERSION = VERSION
    pkg_dir_path = HERE
    SHAPE = (None, None, 3)


class TinyWordless(tfds.core.GeneratorBasedBuilder):
    """No images at all."""

    VERSION = VERSION
    pkg_dir_path = HERE

    def _info(self):
        features = tfds.features.FeaturesDict({"number": np.int64})
        return self.dataset_info_from_configs(features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"number": 1}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("tfds"))
    for builder in (TinyFixed, TinyVariable, TinyWordless):
        builder(data_dir=path, file_format="array_record").download_and_prepare()
    return path


def image_of(source, i) -> np.ndarray:
    return source.decode(tf.constant(i, tf.int64)).numpy()


def assert_same_set(source, split: str, variable: bool) -> None:
    """The source has every image once, with its label, in any order."""
    expected = {image.tobytes(): i % 3 for i, image in enumerate(images(split, variable))}
    found = {image_of(source, i).tobytes(): int(source.labels[i]) for i in range(source.size)}
    assert source.size == len(expected) and found == expected
    assert source.class_names == tuple(CLASSES) and source.channels == 3


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_of_one_size_are_kept_in_memory(data_dir, split):
    source = open_source("tfds:tiny_fixed", split, data_dir=data_dir)
    assert isinstance(source, ArraySource) and source.images.shape[1:] == (6, 7, 3)
    assert_same_set(source, split, variable=False)


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_of_many_sizes_are_read_at_random(data_dir, split):
    source = open_source(f"tfds:tiny_variable:{split}", data_dir=data_dir)
    assert isinstance(source, EncodedSource)
    assert_same_set(source, split, variable=True)


@pytest.fixture
def read_ids(monkeypatch):
    """The ids of the records that are read, in order."""
    read, encoded_records = [], tfds_sets._encoded_records

    class Logged:
        def __init__(self, *args):
            self.records = encoded_records(*args)

        def __getitem__(self, i):
            read.append(i)
            return self.records[i]

    monkeypatch.setattr(tfds_sets, "_encoded_records", Logged)
    return read


def test_labels_are_read_only_when_asked_for(data_dir, read_ids):
    labels = open_source("tfds:tiny_variable", data_dir=data_dir).labels
    assert len(labels) == 23 and not read_ids
    first = labels[np.array([7, 3, 7])]
    assert sorted(read_ids) == [3, 7] and first[0] == first[2]
    whole = labels[:]
    assert sorted(read_ids) == list(range(23)), "every record once"
    np.testing.assert_array_equal(whole, np.asarray(labels))
    assert whole[7] == first[0] and set(whole) == {0, 1, 2} and len(read_ids) == 23


def test_targets_are_read_batch_by_batch_with_their_images(data_dir, read_ids):
    source = open_source("tfds:tiny_variable", data_dir=data_dir)
    every = np.asarray(open_source("tfds:tiny_variable", data_dir=data_dir).labels)
    read_ids.clear()
    views = Views(Augmentation(size=8, jitter_p=0, blur_p=0))
    batches = StepBatches(source, views, 4, elements_per_step=2, targets=True)
    for batch in batches.dataset(0, 2):
        np.testing.assert_array_equal(batch["target"], every[batch["index"]])
    assert 0 < len(set(read_ids)) < source.size, "a batch reads no other labels"


def test_random_access_in_a_parallel_map_keeps_the_order(data_dir):
    source = open_source("tfds:tiny_variable", data_dir=data_dir)
    ids = [7, 0, 22, 7, 13]
    mapped = tf.data.Dataset.from_tensor_slices(tf.constant(ids, tf.int64)).map(source.decode, 4)
    for i, image in zip(ids, mapped, strict=True):
        np.testing.assert_array_equal(image, image_of(source, i))


@pytest.mark.parametrize("name", ["tiny_fixed", "tiny_variable"])
def test_a_set_has_the_same_order_every_time_it_is_opened(data_dir, name):
    one, two = (open_source(f"tfds:{name}", data_dir=data_dir) for _ in range(2))
    assert one.fingerprint == two.fingerprint
    np.testing.assert_array_equal(one.labels, two.labels)
    assert all((image_of(one, i) == image_of(two, i)).all() for i in range(one.size))


@pytest.mark.parametrize("name", ["tiny_fixed", "tiny_variable"])
def test_slices_of_a_split(data_dir, name):
    whole = open_source(f"tfds:{name}", data_dir=data_dir)
    part = open_source(f"tfds:{name}:train[4:9]", data_dir=data_dir)
    assert part.size == 5 and part.fingerprint != whole.fingerprint
    np.testing.assert_array_equal(part.labels, whole.labels[4:9])
    for i in range(5):
        np.testing.assert_array_equal(image_of(part, i), image_of(whole, 4 + i))


def test_missing_sets_and_splits_are_named(data_dir):
    with pytest.raises(UserError, match="TFDS has no such set. Did you mean tiny_fixed?"):
        open_source("tfds:tiny_fixt", data_dir=data_dir)
    for name in ("tiny_fixed", "tiny_variable"):
        with pytest.raises(UserError, match="no such split. Did you mean train?"):
            open_source(f"tfds:{name}:trian", data_dir=data_dir)
    with pytest.raises(UserError, match="no feature named 'image', but number"):
        open_source("tfds:tiny_wordless", data_dir=data_dir)


def test_fixed_shapes_in_tfrecord_files(tmp_path):
    TinyFixed(data_dir=str(tmp_path), file_format="tfrecord").download_and_prepare()
    source = open_source("tfds:tiny_fixed:test", data_dir=str(tmp_path))
    assert isinstance(source, ArraySource)
    assert_same_set(source, "test", variable=False)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """The set of many sizes as TFRecord."""
    path = str(tmp_path_factory.mktemp("records"))
    TinyVariable(data_dir=path, file_format="tfrecord").download_and_prepare()
    return path


@pytest.mark.parametrize("split", ["train", "test"])
def test_variable_shapes_in_tfrecord_files_are_read_whole(records, split):
    source = open_source(f"tfds:tiny_variable:{split}", data_dir=records)
    assert isinstance(source, EncodedSource)
    assert_same_set(source, split, variable=True)
    batch = tf.data.Dataset.range(source.size).map(source.decode, 4)
    assert [i.numpy().tobytes() for i in batch] == [image_of(source, i).tobytes() for i in range(source.size)]


def test_slices_of_tfrecord_files(records):
    part, whole = (open_source(f"tfds:tiny_variable:train{cut}", data_dir=records) for cut in ("[4:9]", ""))
    for i in range(5):
        np.testing.assert_array_equal(image_of(part, i), image_of(whole, 4 + i))
    np.testing.assert_array_equal(part.labels, whole.labels[4:9])


def test_tfrecord_files_too_large_for_memory_are_refused_with_a_fix(records, monkeypatch):
    size = sum(f.stat().st_size for f in Path(records).rglob("*") if f.is_file())
    monkeypatch.setattr(tfds_sets, "IN_MEMORY", size // 3)
    with pytest.raises(UserError) as error:
        open_source("tfds:tiny_variable", data_dir=records)
    folder = f"{records}/tiny_variable/1.0.0"
    assert f"{folder} holds 0 MiB as tfrecord" in str(error.value)
    assert f"--dataset_version_dir={folder} --out_file_format=array_record" in str(error.value)
    assert "data='tfds:tiny_variable:train[:10%]'" in str(error.value)
    assert open_source("tfds:tiny_variable:train[:10%]", data_dir=records).size == 2


class TinyUnreachable(TinyFixed):
    """A set whose server does not answer."""

    def _split_generators(self, dl_manager):
        logging.getLogger("urllib3.connectionpool").warning("Retrying after NameResolutionError")
        raise OSError("Max retries exceeded")


def test_a_failed_download_is_one_error_without_a_warning_for_each_attempt(tmp_path, caplog):
    with pytest.raises(UserError, match=r"could not be downloaded.*Max retries exceeded.*data_dir"):
        open_source("tfds:tiny_unreachable", "train", data_dir=str(tmp_path))
    assert not caplog.records
    logging.getLogger("urllib3.connectionpool").warning("of another program")
    assert caplog.records
