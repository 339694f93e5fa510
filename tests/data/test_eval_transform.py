"""The evaluation view, by every way that makes it, has the pixels of Pillow's resize, to the last bit."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simsiam_tf.data import Augmentation, Views, open_source, pipeline, preprocess

SIDES = ((260, 280), (257, 300), (320, 240), (290, 260), (256, 256), (90, 701), (700, 90), (63, 31))


def noise(height, width, channels=3):
    return np.random.default_rng(height).integers(0, 256, (height, width, channels)).astype(np.uint8)


def by_pillow(image, size):
    """The middle of an image resized by Pillow, its width first, as Pillow does with most images."""
    height, width = image.shape[:2]
    short, shorter = (size if size <= 64 else round(size * 256 / 224)), min(height, width)
    sides = (size, size) if size <= 64 else (int(short * height / shorter), int(short * width / shorter))
    picture = Image.fromarray(image.squeeze())
    for box in ((sides[1], height), (sides[1], sides[0])):
        picture = picture.resize(box, Image.Resampling.BILINEAR)
    top, left = (round((side - size) / 2) for side in sides)
    return np.asarray(picture).reshape(*sides, -1)[top : top + size, left : left + size]


@pytest.mark.parametrize("size", [224, 96, 28])
def test_pixels_are_those_of_pillow(size):
    """Noise, since a shift of weights by 1e-5 shows in it, and in no smooth photograph."""
    views, exported = Views(Augmentation(size=size), 1), Augmentation(size=size)
    view = tf.function(views.evaluation_view, autograph=False, reduce_retracing=True)
    for height, width in SIDES:
        image = noise(height, width)
        expected = by_pillow(image, size)
        np.testing.assert_array_equal(view(tf.constant(image)), expected, f"{height}×{width}")
        ready = views.denormalise(preprocess(image[None], exported))
        np.testing.assert_array_equal(ready[0], expected, f"{height}×{width}")


def test_images_in_batches_and_gray_ones_are_resized_alike():
    view = Views(Augmentation(size=96), 1).evaluation_view
    images = np.stack([noise(130, 110, 1), 255 - noise(130, 110, 1)])
    expected = [by_pillow(image, 96) for image in images]
    np.testing.assert_array_equal(view(tf.constant(images)), expected)


def test_sides_beyond_int32_products_are_exact():
    """A side of 60,000 pixels times that which it is resized to is more than 2³¹."""
    stripe = noise(40, 60_000, 1)
    views = Views(Augmentation(size=96), 1)
    expected = by_pillow(stripe, 96)
    np.testing.assert_array_equal(views.evaluation_view(tf.constant(stripe)), expected)


def test_files_are_read_as_preprocess_reads_their_pixels(tmp_path):
    """The commands read files by `evaluation_views`, exported files by `preprocess`."""
    for i, sides in enumerate(SIDES[:4]):
        Image.fromarray(noise(*sides)).save(tmp_path / f"{i}.{'jpg' if i % 2 else 'png'}", quality=90)
    source, augmentation = open_source(f"folder:{tmp_path}"), Augmentation(size=224)
    (found,) = pipeline.evaluation_views(source, Views(augmentation, 1), range(source.size))
    for i, view in enumerate(found):
        with Image.open(tmp_path / source.names[i]) as picture:
            expected = preprocess(np.asarray(picture)[None], augmentation)[0]
        np.testing.assert_allclose(view, expected, atol=1e-6)
