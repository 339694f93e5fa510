"""Images of more than 8 bits a channel and of several channels, compared with the formula of their range."""

import sys
import tracemalloc

import numpy as np
import pytest
from helpers.pictures import (
    CHANNELS,
    DEEP,
    DEEP_FILES,
    HEIGHT,
    MANY_CHANNELS,
    PICTURE,
    RAMP,
    WIDTH,
    encoded,
    png16,
    saved,
    tiff,
)
from PIL import Image

from simsiam_tf.data.images.deep_pixels import deep_values
from simsiam_tf.data.images.render import PixelRule, render


def test_deep_images_are_turned_too():
    exif = Image.Exif()
    exif[274] = 6
    data = encoded(Image.fromarray(DEEP), "PNG", exif=exif.tobytes())
    assert render(data).shape == (WIDTH, HEIGHT, 3)


@pytest.mark.parametrize("kind", DEEP_FILES)
def test_deep_pixels_are_scaled_by_the_range(kind, check):
    seen = render(DEEP_FILES[kind](), PixelRule(pixel_range=(0, 4095)))
    expected = np.rint(DEEP / 4095 * 255)
    check("formula of the range", seen, np.dstack([expected] * 3))
    values = deep_values(DEEP_FILES[kind](), 3)
    np.testing.assert_array_equal(values[..., 0], DEEP)


def test_values_outside_of_the_range_are_clipped():
    seen = render(tiff(DEEP), PixelRule(1, pixel_range=(1000, 2000)))[..., 0]
    assert seen[DEEP <= 1000].max() == 0 and seen[DEEP >= 2000].min() == 255
    hole = DEEP.astype(np.float32)
    hole[0, 0] = np.nan
    assert render(tiff(hole), PixelRule(1, pixel_range=(0, 4095)))[0, 0] == 0


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [("uint16", 0, 65535), ("int16", -32768, 32767), ("float32", 0, 1)]
)
def test_without_a_range_the_type_has_one(dtype, low, high):
    values = np.linspace(low, high, HEIGHT * WIDTH).astype(dtype).reshape(HEIGHT, WIDTH)
    expected = np.rint((values.astype(float) - low) / (high - low) * 255)
    np.testing.assert_array_equal(render(tiff(values), PixelRule(1))[..., 0], expected)


def test_transparency_of_deep_images():
    layers = np.dstack([DEEP, DEEP, DEEP, np.where(DEEP > 2000, 65535, 0)]).astype(np.uint16)
    for data in (png16(layers), tiff(layers, photometric="rgb", extrasamples=["unassalpha"])):
        seen = render(data, PixelRule(pixel_range=(0, 4095)))
        assert (seen[DEEP <= 2000] == 255).all()
        np.testing.assert_array_equal(seen[DEEP > 2000][:, 0], np.rint(DEEP[DEEP > 2000] / 4095 * 255))


@pytest.mark.parametrize("kind", MANY_CHANNELS)
def test_images_of_several_channels(kind, check):
    data, rule = MANY_CHANNELS[kind](), PixelRule(5, pixel_range=(0, 4200))
    check("formula of the range", render(data, rule), np.rint(CHANNELS / 4200 * 255))
    np.testing.assert_array_equal(deep_values(data, 5), CHANNELS)
    with pytest.raises(ValueError, match="4"):
        render(data, PixelRule(4))


STACKS = {"ZYX": (80,), "TZYX": (2, 40), "TZCYX": (2, 10, 4), "CZYX": (4, 20)}


@pytest.mark.parametrize("axes", STACKS)
def test_of_times_and_depths_the_first_alone_is_decoded(axes):
    page = np.broadcast_to(DEEP[0, 0], (500, 500)).astype(np.uint16)
    values = np.zeros((*STACKS[axes], 500, 500), np.uint16) + page
    for i in range(4 if "C" in axes else 0):
        values[(0,) * axes.index("C") + (i,)] += 7 * i + 1
    data = tiff(values, ome=True, metadata={"axes": axes}, compression="zlib")
    tracemalloc.start()
    found = deep_values(data, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found[0, 0].tolist() == [int(DEEP[0, 0]) + 7 * i + 1 for i in range(4)] if "C" in axes else [0]
    assert found.shape[:2] == (500, 500) and peak < values.nbytes / 2


def test_several_channels_of_8_bits_stay_as_they_are():
    values = (CHANNELS % 256).astype(np.uint8)
    np.testing.assert_array_equal(render(saved(values), PixelRule(5)), values)


def test_arrays_of_gray_and_colours():
    np.testing.assert_array_equal(render(saved(RAMP)), RAMP)
    np.testing.assert_array_equal(render(saved(RAMP[..., 0])), np.dstack([RAMP[..., 0]] * 3))
    np.testing.assert_array_equal(
        render(saved(DEEP), PixelRule(1, pixel_range=(0, 4095)))[..., 0], np.rint(DEEP / 4095 * 255)
    )
    with pytest.raises(ValueError, match="shape"):
        render(saved(np.zeros(5)))


def test_deep_values_of_other_images():
    assert deep_values(encoded(PICTURE, "PNG"), 3) is None
    assert deep_values(encoded(PICTURE, "TIFF"), 3) is None


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ValueError, match=r"simsiam-tf\[tiff\]"):
        render(encoded(Image.fromarray(DEEP), "TIFF"))
