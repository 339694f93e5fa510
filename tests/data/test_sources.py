"""Sources: arrays, IDX files, and the table that names them."""

import gzip

import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf.data import open_source, pretraining
from simsiam_tf.data.sources.base import from_arrays
from simsiam_tf.data.sources.open_source import SOURCES, SourceType, without_split
from simsiam_tf.runtime.errors import UserError

RNG = np.random.default_rng(0)


def image_of(source, i) -> np.ndarray:
    return source.decode(tf.constant(i, tf.int64)).numpy()


# Arrays.


def test_digits_have_two_splits_with_labels():
    train, test = open_source("digits"), open_source("digits:test")
    assert (train.size, test.size) == (1437, 360)
    assert train.images.shape == (1437, 8, 8, 1) and train.images.max() == 255
    assert train.labels.dtype == np.int64 and set(train.labels) == set(range(10))
    assert train.class_names == tuple("0123456789")
    assert open_source("digits", split="test").fingerprint == test.fingerprint != train.fingerprint
    both = {image.tobytes() for image in train.images} & {image.tobytes() for image in test.images}
    assert not both  # no image of one split is in the other


def test_slices_of_a_split():
    whole = open_source("digits")
    for text, cut in [("[:100]", slice(100)), ("[-7:]", slice(-7, None)), ("[3:5]", slice(3, 5))]:
        part = open_source(f"digits:train{text}")
        np.testing.assert_array_equal(part.images, whole.images[cut])
        np.testing.assert_array_equal(part.labels, whole.labels[cut])
        assert part.size == len(whole.images[cut]) and part.fingerprint != whole.fingerprint
    with pytest.raises(UserError, match="holds no image; the split has 1437"):
        open_source("digits:train[5000:]")
    with pytest.raises(UserError, match="'valid' is not a split. Try train, test"):
        open_source("digits:valid")


def test_gather_equals_decode():
    source = open_source("digits")
    ids = tf.constant([4, 0, 1436], tf.int64)
    np.testing.assert_array_equal(source.gather(ids), source.images[ids.numpy()])
    np.testing.assert_array_equal(image_of(source, 1436), source.images[1436])


def test_from_arrays_refuses_what_is_not_uint8():
    gray = from_arrays("mine", np.zeros([4, 5, 6], np.uint8), [0, 1, 0, 1])
    assert gray.images.shape == (4, 5, 6, 1) and gray.channels == 1 and gray.labels.dtype == np.int64
    for wrong in (np.zeros([4, 5, 6, 3]), np.zeros([4, 5, 6, 4], np.uint8)):
        with pytest.raises(UserError, match=r"uint8 \[N, H, W, 1 or 3\]. Received: "):
            from_arrays("mine", wrong)


def idx(path, array) -> None:
    sizes = np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()))


def test_fashion_mnist_from_idx_files(tmp_path, monkeypatch):
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path))
    made = {}
    for split, prefix, n in [("train", "train", 30), ("test", "t10k", 11)]:
        made[split] = RNG.integers(0, 256, [n, 28, 28], np.uint8), RNG.integers(0, 10, n).astype(np.uint8)
        idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", made[split][0])
        idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", made[split][1])
    for split, (images, labels) in made.items():
        source = open_source("fashion_mnist", split)
        np.testing.assert_array_equal(source.images[..., 0], images)
        np.testing.assert_array_equal(source.labels, labels)
        assert source.channels == 1 and len(source.class_names) == 10
    assert open_source("fashion_mnist:train[:20]").size == 20
    whole = (tmp_path / "train-images-idx3-ubyte.gz").read_bytes()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="train-images-idx3-ubyte.gz: unreadable"):
        open_source("fashion_mnist")


def test_unknown_sources_are_refused():
    with pytest.raises(UserError, match="fashon_mnist: no such data set. Did you mean fashion_mnist?"):
        open_source("fashon_mnist")
    with pytest.raises(UserError, match="no such data set. Choose from fashion_mnist, digits"):
        open_source("zzz:qqq")
    names = {
        "folder:x": None, "cifar10": "tfds:cifar10", "tfds:a/b:train[:9]": "tfds:a/b",
        "digits:test[:50]": "digits", "hf:a/b:train": "hf:a/b",
        "list:s3://a/b.csv": "list:s3://a/b.csv", "list:a,list:b": None,
    }  # fmt: skip
    assert {spec: without_split(spec) for spec in names} == names


def test_a_place_is_added_by_one_row_of_the_table(monkeypatch):
    """The row: a name, and a function of the specification's text behind the name and of the options."""

    def open_stripes(rest, options):
        images = np.zeros([int(rest), 8, 8, 1], np.uint8)
        images[:, ::2] = np.arange(int(rest), dtype=np.uint8)[:, None, None, None]
        return from_arrays(f"stripes:{rest} in {options.data_dir}", images, np.arange(int(rest)) % 2)

    row = SourceType("stripes:N", open_stripes)
    monkeypatch.setitem(SOURCES, "stripes", row)
    source = open_source("stripes:12", data_dir="here")
    assert (source.name, source.size) == ("stripes:12 in here", 12) and without_split("stripes:3") is None
    (batch,) = pretraining("stripes:12", batch_size=12, size=8, targets=True).take(1)
    assert sorted(batch["index"].numpy()) == list(range(12))
    np.testing.assert_array_equal(batch["target"], batch["index"] % 2)
    with pytest.raises(UserError, match="stripes:N, or a path"):
        open_source(None)
    with pytest.raises(UserError, match="Did you mean stripes:N?"):
        open_source("stripe:12")


def test_gray_images_in_memory_become_colours():
    gray, colours = open_source("digits"), open_source("digits", channels=3)
    assert colours.channels == 3 and colours.fingerprint != gray.fingerprint
    np.testing.assert_array_equal(colours.images, gray.images.repeat(3, axis=-1))
    assert open_source("digits", channels=1).images.shape == gray.images.shape
