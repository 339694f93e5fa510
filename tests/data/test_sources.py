"""Sources: arrays, IDX files, folders good and bad, and the table that names them."""

import gzip
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simsiam_tf.data import open_source, pretraining, subset
from simsiam_tf.data.sources import folder, folder_check
from simsiam_tf.data.sources.base import EncodedSource, from_arrays
from simsiam_tf.data.sources.open_source import SOURCES, SourceType, query_split
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
    with pytest.raises(UserError, match="'valid' is no split. Try train, test"):
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
    assert query_split("folder:x") is None and query_split("cifar10") == "test"


def test_a_place_is_added_by_one_row_of_the_table(monkeypatch):
    """The row: a name, and a function of the specification's text behind the name and of the options."""

    def open_stripes(rest, options):
        images = np.zeros([int(rest), 8, 8, 1], np.uint8)
        images[:, ::2] = np.arange(int(rest), dtype=np.uint8)[:, None, None, None]
        return from_arrays(f"stripes:{rest} in {options.data_dir}", images, np.arange(int(rest)) % 2)

    row = SourceType("stripes:N", open_stripes, has_query_split=False)
    monkeypatch.setitem(SOURCES, "stripes", row)
    source = open_source("stripes:12", data_dir="here")
    assert (source.name, source.size) == ("stripes:12 in here", 12) and query_split("stripes:3") is None
    (batch,) = pretraining("stripes:12", batch_size=12, size=8, targets=True).take(1)
    assert sorted(batch["index"].numpy()) == list(range(12))
    np.testing.assert_array_equal(batch["target"], batch["index"] % 2)
    with pytest.raises(UserError, match="stripes:N, or a path"):
        open_source(None)
    with pytest.raises(UserError, match="Did you mean stripes:N?"):
        open_source("stripe:12")


# Folders.


def photo(height=11, width=17) -> np.ndarray:
    """A smooth colour image, so that JPEG and palettes keep it nearly."""
    y, x = np.mgrid[:height, :width]
    return np.stack([8 * y + 60, 9 * x + 40, 200 - 5 * x], axis=-1).astype(np.uint8)


def save(path, image=None, **kwargs) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = photo() if image is None else image
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(path, **kwargs)


def test_a_nested_folder_without_classes_has_no_labels(tmp_path):
    for name in ("b.png", "a/deep/er/c.PNG", "a/d.png", ".hidden/e.png", "a/.f.png"):
        save(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    source = open_source(f"folder:{tmp_path}")
    assert isinstance(source, EncodedSource) and source.channels == 3
    assert (source.size, source.labels, source.class_names) == (3, None, ())
    assert list(folder.open_folder(str(tmp_path)).names) == ["a/d.png", "a/deep/er/c.PNG", "b.png"]
    for i in range(3):
        np.testing.assert_array_equal(image_of(source, i), photo())


def test_class_folders_give_labels(tmp_path):
    for i, name in enumerate(["dog/1.png", "cat/x/2.png", "cat/1.png", "emu/1.png"]):
        save(tmp_path / name, photo() // (i + 1))
    source = open_source(f"folder:{tmp_path}")
    assert source.class_names == ("cat", "dog", "emu")
    assert source.labels.tolist() == [0, 0, 1, 2]
    for i, divisor in enumerate([3, 2, 1, 4]):  # cat/1, cat/x/2, dog/1, emu/1
        np.testing.assert_array_equal(image_of(source, i), photo() // divisor)


def test_a_single_folder_is_no_class(tmp_path):
    save(tmp_path / "only" / "1.png")
    assert open_source(f"folder:{tmp_path}").labels is None


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.gif", "a.jpg", "a.jpeg", "a.webp"])
def test_formats_decode_as_pil_decodes_them(tmp_path, name):
    save(tmp_path / name)
    expected = np.asarray(Image.open(tmp_path / name).convert("RGB"), float)
    ours = image_of(open_source(f"folder:{tmp_path}"), 0)
    lossy = name.endswith(("jpg", "jpeg", "webp"))
    assert ours.shape == (11, 17, 3) and np.abs(ours - expected).mean() <= (1.5 if lossy else 0)


@pytest.mark.parametrize(
    "name, mode, tolerance",
    [("l.jpg", "L", 1), ("l.png", "L", 0), ("a.png", "RGBA", 0), ("p.png", "P", 0), ("c.jpg", "CMYK", 1)],
)
def test_colour_modes_become_rgb(tmp_path, name, mode, tolerance):
    image = Image.fromarray(photo()).convert(mode)
    save(tmp_path / name, image)
    expected = np.asarray(Image.open(tmp_path / name).convert("RGB"), float)
    ours = image_of(open_source(f"folder:{tmp_path}"), 0)
    assert ours.shape == (11, 17, 3) and np.abs(ours - expected).mean() <= tolerance


def test_animations_give_their_first_frame(tmp_path):
    frames = [Image.fromarray(np.full([9, 8, 3], v, np.uint8)) for v in (30, 120, 210)]
    save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    image = image_of(open_source(f"folder:{tmp_path}"), 0)
    assert image.shape == (9, 8, 3) and np.abs(image.astype(int) - 30).max() <= 4


@pytest.fixture
def damaged(tmp_path):
    """Two good images and three bad ones, in two class folders."""
    root = tmp_path / "images"
    save(root / "a" / "good.png")
    save(root / "b" / "good.jpg", RNG.integers(0, 256, [64, 64, 3], np.uint8))
    whole = (root / "b" / "good.jpg").read_bytes()
    (root / "a" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "b" / "empty.png").write_bytes(b"")
    (root / "b" / "text.jpg").write_text("this is no image")
    return root


BAD = ["a/cut.jpg", "b/empty.png", "b/text.jpg"]


def test_unreadable_images_are_named(damaged, tmp_path):
    report = tmp_path / "run" / "unreadable.json"
    with pytest.raises(UserError, match="3 of 5 images cannot be decoded") as caught:
        open_source(f"folder:{damaged}", report=report)
    assert str(report) in str(caught.value) and "on_bad_image=skip" in str(caught.value)
    assert "\n" not in str(caught.value)
    reasons = json.loads(report.read_text())["unreadable"]
    assert sorted(reasons) == BAD and all(reasons.values()) and reasons["b/empty.png"] == "empty file"


def test_unreadable_images_can_be_skipped(damaged):
    source = open_source(f"folder:{damaged}", on_bad_image="skip")
    assert source.size == 2 and source.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(image_of(source, 0), photo())
    assert image_of(source, 1).shape == (64, 64, 3)


def test_images_are_checked_again_only_when_they_change(damaged, tmp_path, monkeypatch):
    report, decoded, outcome = tmp_path / "report.json", [], folder_check._outcome

    def counting(path, max_megapixels):
        decoded.append(path)
        return outcome(path, max_megapixels)

    monkeypatch.setattr(folder_check, "_outcome", counting)

    def names() -> list[str]:
        decoded.clear()
        return list(folder.open_folder(str(damaged), "skip", report).names)

    assert names() == ["a/good.png", "b/good.jpg"] and len(decoded) == 5
    assert names() == ["a/good.png", "b/good.jpg"] and len(decoded) == 0
    save(damaged / "b" / "empty.png")  # mended
    assert names() == ["a/good.png", "b/empty.png", "b/good.jpg"] and len(decoded) == 1
    (damaged / "a" / "good.png").rename(damaged / "a" / "better.png")
    assert names() == ["a/better.png", "b/empty.png", "b/good.jpg"] and len(decoded) == 1
    (damaged / "a" / "better.png").unlink()
    assert names() == ["b/empty.png", "b/good.jpg"] and len(decoded) == 0
    assert list(json.loads(report.read_text())["images"]) == ["a/cut.jpg", *names(), "b/text.jpg"]
    assert len(folder.open_folder(str(damaged), "skip", report, 50.0).names) == 2 and len(decoded) == 4
    assert len(folder.open_folder(str(damaged), "skip").names) == 2 and len(decoded) == 8  # no report


def test_a_report_that_cannot_be_written_is_told_in_a_line(damaged, tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    source = open_source(f"folder:{damaged}", on_bad_image="skip", report=tmp_path / "taken" / "report.json")
    assert source.size == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "report.json: cannot be written" in first and "such as a/cut.jpg" in second


def test_a_path_names_a_folder_and_other_types_are_refused(tmp_path):
    save(tmp_path / "1.png")
    assert open_source(tmp_path).name == f"folder:{tmp_path}" and query_split(tmp_path) is None
    for wrong in (None, 3, ["a.jpg"], b"digits"):
        with pytest.raises(UserError, match="names no data set. Pass one of fashion_mnist"):
            open_source(wrong)


def test_empty_and_missing_folders_are_refused(tmp_path):
    for path in (tmp_path / "nowhere", ""):
        with pytest.raises(UserError, match="no such folder"):
            open_source(f"folder:{path}")
    (tmp_path / "a.tiff").write_bytes(b"II*")
    with pytest.raises(UserError, match="holds no image .*.jpg"):
        open_source(f"folder:{tmp_path}")
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="not one of its images can be decoded"):
        open_source(f"folder:{tmp_path}", on_bad_image="skip")


def test_a_subset_holds_the_named_images_in_the_named_order(tmp_path):
    whole = open_source("digits")
    part = subset(whole, [5, 3])
    np.testing.assert_array_equal(part.gather(tf.constant([0, 1])), whole.gather(tf.constant([5, 3])))
    np.testing.assert_array_equal(part.labels, whole.labels[[5, 3]])
    assert part.size == 2 and part.fingerprint != subset(whole, [3, 5]).fingerprint
    for i, name in enumerate(("a/0.png", "b/1.png", "b/2.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture = np.full([2, 2, 3], 10 * i, np.uint8)
        (tmp_path / name).write_bytes(tf.io.encode_png(picture).numpy())
    part = subset(open_source(f"folder:{tmp_path}"), [2, 0])
    assert [int(part.decode(tf.constant(i, tf.int64))[0, 0, 0]) for i in (0, 1)] == [20, 0]
    assert part.labels[:].tolist() == [1, 0] and np.asarray(part.labels).tolist() == [1, 0]


def test_images_beside_class_folders_are_named(tmp_path, capsys):
    """Because of them the set has no labels, and no other line says so."""
    for name in ("cats/1.png", "dogs/2.png", "stray.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(tf.io.encode_png(np.zeros((4, 4, 3), np.uint8)).numpy())
    assert open_source(f"folder:{tmp_path}").labels is None
    assert "no labels, since 1 of 3 images lie beside its 2 folders: stray.png." in capsys.readouterr().err
    (tmp_path / "stray.png").unlink()
    assert open_source(f"folder:{tmp_path}").class_names == ("cats", "dogs")
    assert "no labels" not in capsys.readouterr().err
