"""Small images of one size are decoded once for a training, with the same pixels and the same views."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from simsiam_tf.data import open_source, pipeline, subset
from simsiam_tf.data.augment.augmentations import Augmentation
from simsiam_tf.data.augment.views import Views
from simsiam_tf.data.sources import decoded
from simsiam_tf.data.sources.decoded import keep_decoded, keep_squares

SIZE, COUNT = (40, 30), 9  # width and height; images


def write_images(folder, *odd: Image.Image, seed: int = 0):
    """A folder of smooth PNGs, some of them transparent, and of further images; returns its source."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for i in range(COUNT):
        mode = "RGBA" if i % 3 == 0 else "RGB"
        coarse = Image.fromarray(rng.integers(0, 256, [4, 5, len(mode)], np.uint8), mode)
        coarse.resize(SIZE, Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    for i, image in enumerate(odd):
        image.save(folder / f"odd{i}.png", exif=image.getexif())
    return open_source(f"folder:{folder}")


def pixels_of(source) -> list[np.ndarray]:
    return [source.decode(np.int64(i)).numpy() for i in range(source.size)]


def test_pixels_are_those_of_the_files(tmp_path):
    source = write_images(tmp_path / "a")
    kept = keep_decoded(source)
    assert source.pixels is None and kept.pixels.shape == (COUNT, 30, 40, 3)
    np.testing.assert_array_equal(kept.pixels, pixels_of(source))
    np.testing.assert_array_equal(pixels_of(kept), pixels_of(source))
    assert (kept.contents(), kept.fingerprint, kept.names) == (
        source.contents(), source.fingerprint, source.names,
    )  # fmt: skip
    part = subset(kept, [7, 2])
    np.testing.assert_array_equal(part.pixels, kept.pixels[[7, 2]])


@pytest.mark.parametrize("flip_p", [pytest.param(0.0, marks=pytest.mark.slow), 0.5])
def test_views_are_those_of_images_read_one_at_a_time(tmp_path, flip_p):
    source = write_images(tmp_path / "a")
    augmentation = Augmentation(size=24, flip_p=flip_p)
    kept, read = (
        next(iter(pipeline.StepBatches(s, Views(augmentation), 6, 1).dataset(2, 3)))
        for s in (keep_decoded(source), source)
    )
    np.testing.assert_array_equal(kept["index"], read["index"])
    for a, b in zip(kept["views"], read["views"], strict=True):
        # Products and resizing round a pixel of the crop to another level now and then.
        levels = np.abs(a - b) * 255 * min(augmentation.std)
        assert (levels > 0.1).mean() < 0.01 and levels.max() < 3


def turned(width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (width, height), "red")
    image.getexif()[0x0112] = 6  # a quarter turn
    return image


@pytest.mark.parametrize("odd", [Image.new("RGB", (30, 40)), Image.new("RGB", (41, 30)), turned(40, 30)])
def test_images_of_several_sizes_are_read_one_at_a_time(tmp_path, odd):
    source = write_images(tmp_path / "a", odd)
    assert keep_decoded(source) is source


@pytest.mark.parametrize(("name", "value"), [("MAX_SIDE", 39), ("MAX_BYTES", COUNT * 3600 - 1)])
def test_large_images_are_read_one_at_a_time(tmp_path, monkeypatch, name, value):
    source = write_images(tmp_path / "a")
    monkeypatch.setattr(decoded, name, value)
    assert keep_decoded(source) is source
    monkeypatch.setattr(decoded, name, value + 1)
    assert keep_decoded(source).pixels is not None


def test_a_file_that_no_longer_decodes_is_left_to_the_training(tmp_path):
    source = write_images(tmp_path / "a")
    (tmp_path / "a" / "4.png").write_bytes(b"no image")
    assert keep_decoded(source) is source
    (tmp_path / "a" / "4.png").unlink()
    assert keep_decoded(source) is source


@pytest.mark.parametrize("check", ["none", "header", "decode"])
def test_what_was_checked_decides_nothing(tmp_path, check, monkeypatch):
    """A run that continues with another `check`, or after other commands, has the same views."""
    monkeypatch.setenv("SIMSIAM_TF_CACHE", str(tmp_path / "cache"))
    write_images(tmp_path / "a")
    monkeypatch.setenv("SIMSIAM_TF_CACHE", str(tmp_path / "another"))
    source = open_source(f"folder:{tmp_path / 'a'}", check=check)
    assert (source.headers is None) == (check == "none")
    assert keep_decoded(source).pixels is not None
    mixed = write_images(tmp_path / "b", Image.new("RGB", (41, 30)))
    mixed = dataclasses.replace(mixed, headers=None)
    assert keep_decoded(mixed) is mixed


def test_an_image_that_others_stand_in_for_decides_nothing(tmp_path):
    source = write_images(tmp_path / "a")
    headers = source.headers.copy()
    headers[3]["reason"], headers[3]["width"] = 1, 0
    assert keep_decoded(dataclasses.replace(source, headers=headers)).pixels is not None


def test_images_that_are_all_turned_have_one_size(tmp_path):
    (tmp_path / "a").mkdir()
    for i in range(3):
        turned(40, 30).save(tmp_path / "a" / f"{i}.jpg", exif=turned(40, 30).getexif())
    assert keep_decoded(open_source(f"folder:{tmp_path / 'a'}")).pixels.shape == (3, 40, 30, 3)


def write_sizes(folder, sizes):
    """A folder of smooth PNGs of several sizes, all with the same few coarse colours; returns its source."""
    rng = np.random.default_rng(3)
    folder.mkdir()
    for i, size in enumerate(sizes):
        coarse = Image.fromarray(rng.integers(0, 256, [4, 5, 3], np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return open_source(f"folder:{folder}")


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[(90, 60), (60, 91), (64, 64), (300, 120)], [(150, 40), (30, 120)]])
def test_views_of_squares_are_those_of_the_images(tmp_path, sizes):
    source = write_sizes(tmp_path / "a", sizes)
    augmentation = Augmentation(size=24, area=(0.2, 1.0))
    squares, read = (
        next(iter(pipeline.StepBatches(s, Views(augmentation), len(sizes), 1).dataset(0, 1)))
        for s in (keep_squares(source, 64), source)
    )
    np.testing.assert_array_equal(squares["index"], read["index"])
    for a, b in zip(squares["views"], read["views"], strict=True):
        levels = np.abs(a - b) * 255 * min(augmentation.std)
        assert levels.mean() < 2.5 and np.quantile(levels, 0.99) < 12


def test_the_pixels_of_squares_serve_training_views_alone(tmp_path):
    source = write_sizes(tmp_path / "a", [(50, 40), (30, 60), (20, 20)])
    kept = keep_squares(source, 32)
    assert kept.squares.pixels.shape == (3, 32, 32, 3) and kept.pixels is None
    np.testing.assert_array_equal(kept.squares.sizes, [[40, 50], [60, 30], [20, 20]])
    for a, b in zip(pixels_of(kept), pixels_of(source), strict=True):
        np.testing.assert_array_equal(a, b)
    views = Views(Augmentation(size=24))
    shown = [next(iter(pipeline.evaluation_views(s, views, range(3)))) for s in (kept, source)]
    np.testing.assert_array_equal(*shown)
    assert keep_squares(kept, 32) is kept and subset(kept, [1]).squares is None
