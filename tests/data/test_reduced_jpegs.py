"""JPEG files decoded at a part of their size, and features computed from these."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simsiam_tf.data.images.decode import decode
from simsiam_tf.data.images.render import PixelRule

LEAST = 32


def picture(width, height):
    """A smooth picture, in which a shift by a pixel shows."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 19 + k) + np.cos(y / 23 - k) for k in range(3)]
    return Image.fromarray((127 + 60 * np.stack(waves, axis=-1)).astype(np.uint8))


def encoded(image, form="JPEG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def decoded(data, least=LEAST, channels=3, plain=True):
    """By TensorFlow where the image is plain, else by Pillow."""
    return decode(tf.constant(data), PixelRule(channels, least_side=least), plain).numpy()


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(
    ("size", "times"),
    [((63, 40), 1), ((200, 63), 1), ((64, 64), 2), ((300, 127), 2), ((128, 140), 4), ((601, 257), 8)],
)
def test_the_shorter_side_stays_at_least_as_long(size, times, plain):
    data = encoded(picture(*size), quality=95)
    pixels = decoded(data, plain=plain)
    assert pixels.shape == (*(-(-side // times) for side in size[::-1]), 3)
    whole = decoded(data, least=0, plain=plain)
    assert whole.shape == (*size[::-1], 3)
    if times == 1:
        np.testing.assert_array_equal(pixels, whole)
    rows, columns = (side // times * times for side in size[::-1])  # without pixels at the edge
    means = whole[:rows, :columns].reshape(rows // times, times, columns // times, times, 3).mean((1, 3))
    assert np.abs(means - pixels[: rows // times, : columns // times]).max() < 4


@pytest.mark.parametrize("channels", [1, 3])
def test_both_decoders_agree(channels):
    data = encoded(picture(200, 130), quality=95)
    ours, pillows = (decoded(data, channels=channels, plain=plain).astype(int) for plain in (True, False))
    assert ours.shape == pillows.shape == (33, 50, channels)
    assert np.abs(ours - pillows).max() <= 2


def test_a_turned_jpeg_is_reduced_and_upright():
    exif = Image.Exif()
    exif[274] = 6
    data = encoded(picture(260, 140), quality=95, exif=exif)
    upright = decoded(data, least=0, plain=False)
    reduced = decoded(data, plain=False)
    assert upright.shape == (260, 140, 3) and reduced.shape == (65, 35, 3)
    means = upright.reshape(65, 4, 35, 4, 3).mean((1, 3))
    assert np.abs(means - reduced).max() < 4


def test_png_is_decoded_at_its_size():
    image = picture(300, 200)
    for plain in (True, False):
        np.testing.assert_array_equal(decoded(encoded(image, "PNG"), plain=plain), np.asarray(image))
