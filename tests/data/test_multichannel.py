"""Augmentation of images of other numbers of channels than the three of colours."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf.data import open_source
from simsiam_tf.data.augment import random_layers
from simsiam_tf.data.augment.augmentations import AUGMENTATIONS
from simsiam_tf.data.augment.views import Views
from simsiam_tf.data.images.render import PixelRule, render
from simsiam_tf.runtime.errors import UserError


def test_jitter_of_other_numbers_of_channels():
    """Each channel has a brightness and a contrast of its own, which do not depend on the others' values."""
    rng = np.random.default_rng(0)
    x = rng.uniform(60, 190, [2, 8, 8, 5]).astype(np.float32)
    layer = random_layers.RandomColorJitter(0.1, 0.1, p=0.5)
    u = rng.uniform(size=[2, layer.draws]).astype(np.float32)
    u[:, 0] = [0.4, 0.6]  # the first is chosen
    jittered = layer.augment_images(x, layer.transformations(tf.constant(u), x)).numpy()
    np.testing.assert_array_equal(jittered[1], x[1])
    for c in range(5):
        brightness, contrast = 0.9 + 0.2 * ((u[0, 1:3].astype(np.float64) + c * u[0, 3:5]) % 1.0)
        plane = brightness * x[0, ..., c]
        np.testing.assert_allclose(
            jittered[0, ..., c], contrast * plane + (1 - contrast) * plane.mean(), atol=1e-3
        )


def test_channels_of_multichannel_views_draw_independently():
    """Over many images, the factors of two channels are uniform and uncorrelated."""
    u = np.random.default_rng(0).uniform(size=[4000, 9]).astype(np.float32)
    u[:, 0] = 0.0
    layer = random_layers.RandomColorJitter(1.0, 1.0, p=1.0)
    factors = layer.transformations(tf.constant(u), np.zeros([4000, 2, 2, 6]))["channel_factors"].numpy()
    assert abs(factors.mean() - 1.0) < 0.02 and abs(factors.std() - 3**-0.5) < 0.02
    flat = np.moveaxis(factors, 1, 0).reshape(4000, -1)
    assert np.abs(np.corrcoef(flat.T) - np.eye(12)).max() < 0.06


def test_gray_images_take_an_augmentation_made_for_colours():
    """Its statistics averaged, and of the jitter brightness and contrast."""
    imagenet = dataclasses.replace(AUGMENTATIONS["imagenet"], size=16)
    images = tf.constant(np.random.default_rng(0).integers(0, 256, [20, 30, 1]), tf.uint8)
    view = Views(imagenet, 1).evaluation_view(images)
    normalised = Views(imagenet, 1).normalise(view)
    mean, std = np.mean([0.485, 0.456, 0.406]), np.mean([0.229, 0.224, 0.225])
    np.testing.assert_allclose(normalised, (np.array(view) / 255 - mean) / std, rtol=1e-5, atol=1e-6)


def test_images_of_other_channels_are_left_out(tmp_path, capsys):
    for channels in (1, 3, 5):
        np.save(tmp_path / f"{channels}.npy", np.full([6, 7, channels], 40, np.uint8))
    with pytest.raises(UserError, match="different channels: 1 of 1, 1 of 3, 1 of 5. Pass channels=3"):
        open_source(f"folder:{tmp_path}", on_bad_image="skip")
    with pytest.raises(UserError, match=r"5.npy .it has 5 channels, not 3"):
        open_source(f"folder:{tmp_path}", channels=3)
    for channels, names in ((3, ("1.npy", "3.npy")), (5, ("5.npy",))):
        source = open_source(f"folder:{tmp_path}", channels=channels, on_bad_image="skip")
        assert source.names == names and source.channels == channels
        for i in range(source.size):
            assert source.decode(tf.constant(i, tf.int64)).shape == (6, 7, channels)
    five = (tmp_path / "5.npy").read_bytes()
    with pytest.raises(ValueError, match="it has 5 channels, not 4; pass channels=5"):
        render(five, PixelRule(3))
