"""Folders of images, good and bad, and parts of a source."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf
from helpers.pictures import DEEP, PICTURE, encoded
from PIL import Image

from simsiam_tf.data import open_source, subset
from simsiam_tf.data.sources import checked_source
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.data.sources.folder import folder_members
from simsiam_tf.data.sources.open_source import without_split
from simsiam_tf.runtime.errors import UserError

RNG = np.random.default_rng(0)


def image_of(source, i) -> np.ndarray:
    return source.decode(tf.constant(i, tf.int64)).numpy()


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
    assert list(open_source(tmp_path).names) == ["a/d.png", "a/deep/er/c.PNG", "b.png"]
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


def test_sets_of_gray_images_keep_one_channel(tmp_path):
    gray = Image.fromarray(photo()).convert("L")
    save(tmp_path / "a.png", gray)
    save(tmp_path / "b.jpg", gray)
    source = open_source(tmp_path)
    assert source.channels == 1
    np.testing.assert_array_equal(image_of(source, 0)[..., 0], np.asarray(gray))
    colours = open_source(tmp_path, channels=3)
    np.testing.assert_array_equal(image_of(colours, 0), np.dstack([np.asarray(gray)] * 3))
    save(tmp_path / "c.png")
    assert open_source(tmp_path).channels == 3


def test_files_are_images_by_their_contents(tmp_path, capsys):
    """Names can be wrong, or say nothing; what is no image is counted."""
    image = Image.fromarray(photo())
    save(tmp_path / "webp.jpg", image, format="WEBP", lossless=True)
    save(tmp_path / "no suffix", image, format="PNG")
    save(tmp_path / "odd.image", image, format="PNG")
    save(tmp_path / ".hidden.png", image)
    save(tmp_path / "._a.png", image, format="PNG")
    save(tmp_path / "elsewhere" / "z.png", image)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file link.png").symlink_to(tmp_path / "webp.jpg")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "README").write_text("no image")
    source = open_source(tmp_path)
    assert source.names == ("elsewhere/z.png", "file link.png", "no suffix", "odd.image", "webp.jpg")
    for i in range(5):
        np.testing.assert_array_equal(image_of(source, i), photo())
    line = capsys.readouterr().err.splitlines()[0]
    for count in ("5 files passed over", "2 hidden", "1 link to a folder", "1 .txt", "1 without a suffix"):
        assert count in line
    (tmp_path / "page.jpg").write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(UserError, match=r"page.jpg \(an HTML page, not an image\)"):
        open_source(tmp_path)


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
    monkeypatch.setenv("SIMSIAM_TF_CACHE", str(tmp_path / "cache"))
    decoded, decode_checked = [], checked_source.decode_checked

    def counting(data, *args, **kwargs):
        decoded.append(data)
        return decode_checked(data, *args, **kwargs)

    monkeypatch.setattr(checked_source, "decode_checked", counting)

    def names(**options) -> list[str]:
        decoded.clear()
        return list(open_source(damaged, on_bad_image="skip", **options).names)

    assert names() == ["a/good.png", "b/good.jpg"] and len(decoded) == 5
    assert names() == ["a/good.png", "b/good.jpg"] and len(decoded) == 0
    save(damaged / "b" / "empty.png")  # mended
    assert names() == ["a/good.png", "b/empty.png", "b/good.jpg"] and len(decoded) == 1
    (damaged / "a" / "good.png").rename(damaged / "a" / "better.png")
    assert names() == ["a/better.png", "b/empty.png", "b/good.jpg"] and len(decoded) == 1
    (damaged / "a" / "better.png").unlink()
    assert names() == ["b/empty.png", "b/good.jpg"] and len(decoded) == 0
    assert len(names(max_megapixels=50.0)) == 2 and len(decoded) == 4


def test_without_a_check_broken_files_stay_in(damaged):
    assert open_source(damaged, check="none").size == 5
    assert (
        open_source(damaged, check="header", on_bad_image="skip").size == 3
    )  # the cut file's header is right
    assert open_source(damaged, check="decode", on_bad_image="skip").size == 2


def test_a_report_that_cannot_be_written_is_told_in_a_line(damaged, tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    source = open_source(f"folder:{damaged}", on_bad_image="skip", report=tmp_path / "taken" / "report.json")
    assert source.size == 2
    first, second = capsys.readouterr().err.splitlines()
    assert (
        "report.json: cannot be written" in first
        and "3 of 5 images left out: 1 × a JPEG that is damaged or cut off, such as a/cut.jpg; " in second
    )


def test_a_path_names_a_folder_and_other_types_are_refused(tmp_path):
    save(tmp_path / "1.png")
    assert open_source(tmp_path).name == f"folder:{tmp_path}" and without_split(tmp_path) is None
    for wrong in (None, 3, ["a.jpg"], b"digits"):
        with pytest.raises(UserError, match="names no data set. Pass one of fashion_mnist"):
            open_source(wrong)


def test_empty_and_missing_folders_are_refused(tmp_path):
    for path in (tmp_path / "nowhere", ""):
        with pytest.raises(UserError, match="no such folder"):
            open_source(f"folder:{path}")
    (tmp_path / "a.txt").write_bytes(b"II*")
    with pytest.raises(UserError, match=r"holds no image, at any depth \(1 .txt\)"):
        open_source(f"folder:{tmp_path}")
    with pytest.raises(UserError, match=f"is a file. Pass data=list:{tmp_path}/a.txt"):
        open_source(f"folder:{tmp_path}/a.txt")
    with pytest.raises(UserError, match=f"no such data set. Pass folder:{tmp_path}."):
        open_source(str(tmp_path))
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
    line = capsys.readouterr().err
    assert "sub-folders are not used as labels, since 1 of 3 images lie in none: stray.png. Training" in line
    (tmp_path / "stray.png").unlink()
    assert open_source(f"folder:{tmp_path}").class_names == ("cats", "dogs")
    assert "labels" not in capsys.readouterr().err


def test_an_archive_in_a_folder_is_counted_with_the_way_to_read_it(tmp_path, capsys):
    (tmp_path / "1.png").write_bytes(tf.io.encode_png(np.zeros((4, 4, 3), np.uint8)).numpy())
    (tmp_path / "more.zip").write_bytes(b"PK")
    assert open_source(f"folder:{tmp_path}").size == 1
    way = f"1 file passed over: 1 .zip. Images in archives are read if you pass folder:{tmp_path},zip:PATH"
    assert way in capsys.readouterr().err


@pytest.mark.parametrize("check", ["decode", "header"])
def test_images_that_another_environment_could_read_are_named(tmp_path, monkeypatch, capsys, check):
    """The cache is one for all environments of a user, whose libraries differ."""
    pytest.importorskip("tifffile")
    deep = encoded(Image.fromarray(DEEP), "TIFF")
    for name, data in (("deep.tif", deep), ("plain.tif", encoded(PICTURE, "TIFF"))):
        (tmp_path / name).write_bytes(data)
    assert open_source(tmp_path, check=check).names == ("deep.tif", "plain.tif")
    capsys.readouterr()
    with monkeypatch.context() as elsewhere:
        elsewhere.setitem(sys.modules, "tifffile", None)
        with pytest.raises(
            UserError, match=r"such as deep.tif \(TIFF .* need pip install 'simsiam-tf\[tiff\]'"
        ):
            open_source(tmp_path, check=check)
        assert open_source(tmp_path, check=check, on_bad_image="skip").names == ("plain.tif",)
    assert "changed" not in capsys.readouterr().err
    assert open_source(tmp_path, check=check).names == ("deep.tif", "plain.tif")


def test_what_was_meant_is_named(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.png").write_bytes(b"")
    meant = {
        "a/0.png": "folder:ROOT/a", "a/*.png": "folder:ROOT/a", "a,ROOT/b": "folder:ROOT/a,folder:ROOT/b",
        "c": "folder:/path/to/images", "x.zip": "zip:ROOT/x.zip", "x.csv": "list:ROOT/x.csv",
    }  # fmt: skip
    for file in ("x.zip", "x.csv"):
        (tmp_path / file).write_bytes(b"")
    for given, fix in meant.items():
        with pytest.raises(UserError) as raised:
            folder_members(f"{tmp_path}/{given}".replace("ROOT", str(tmp_path)))
        assert str(raised.value).endswith(f"Pass data={fix.replace('ROOT', str(tmp_path))}.")
