"""Query views depend on image, id and seed alone, and show the part of the image that they are said to."""

import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf.data.augment.query_view import QueryView

PLAIN = QueryView(area=(0.5, 0.7), degrees=0, gamma=(1, 1), noise=0)


def pictures(count=6, size=24, channels=3):
    return np.random.default_rng(0).integers(0, 256, [count, size, size, channels], np.uint8)


def test_a_query_is_a_function_of_id_and_seed_whatever_the_batch():
    images, ids = pictures(), np.array([7, 3, 90, 4, 12, 5])
    whole = QueryView().apply(tf.constant(images), ids, seed=1).numpy()
    order = [4, 0, 2]
    part = QueryView().apply(tf.constant(images[order]), ids[order], seed=1).numpy()
    assert whole.dtype == np.uint8 and whole.shape == images.shape
    np.testing.assert_array_equal(part, whole[order])
    for other in (
        QueryView().apply(tf.constant(images), ids, seed=2).numpy(),
        QueryView().apply(tf.constant(images), ids + 1, seed=1).numpy(),
    ):
        assert all((a != b).any() for a, b in zip(whole, other, strict=True))


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_a_crop_covers_the_said_share_and_lies_within_the_image(channels):
    """On a ramp, a pixel's value tells its place."""
    size = 101
    ramp = np.broadcast_to(np.arange(size, dtype=np.uint8)[:, None, None], [size, size, channels])
    queries = PLAIN.apply(tf.constant(np.stack([ramp] * 40)), np.arange(40), 0).numpy().astype(float)
    first, last = queries[:, 0, 0, 0], queries[:, -1, 0, 0]
    share = ((last - first + 1) / size) ** 2
    assert share.min() > 0.48 and share.max() < 0.72 and np.ptp(share) > 0.1
    assert first.min() >= 0 and last.max() <= size - 1
    assert first.min() < 4 and last.max() > size - 5, "the place varies over the whole image"
    assert (queries == queries[:, :, :1, :1]).all()


def test_a_turned_crop_shows_the_turned_image():
    """A ramp's slopes along the query's axes are scale · cos and scale · sin of the angle."""
    size = 64
    rows, columns = np.mgrid[:size, :size].astype(np.uint8)
    image = np.stack([rows, columns], axis=-1) * 3  # channel 0: y, channel 1: x
    view = QueryView(area=(0.36, 0.36), degrees=15, gamma=(1, 1), noise=0)
    queries = view.apply(tf.constant(np.stack([image] * 30)), np.arange(30), 0).numpy().astype(float) / 3
    inner = queries[:, 8:-8, 8:-8]
    dy, dx = inner[:, -1, 0] - inner[:, 0, 0], inner[:, 0, -1] - inner[:, 0, 0]
    span = size - 17
    cos, sin = dy[:, 0] / span, dx[:, 0] / span
    np.testing.assert_allclose(np.hypot(cos, sin), 0.6, atol=0.02)
    angles = np.degrees(np.arctan2(sin, cos))
    assert np.abs(angles).max() < 15.5 and angles.min() < -8 and angles.max() > 8
    np.testing.assert_allclose(dx[:, 1] / span, cos, atol=0.02)
    np.testing.assert_allclose(dy[:, 1] / span, -sin, atol=0.02)


def test_gamma_and_noise_are_in_their_ranges():
    gray = np.full([200, 16, 16, 1], 128, np.uint8)
    by_gamma = QueryView(gamma=(0.5, 2), noise=0).apply(tf.constant(gray), np.arange(200), 0).numpy()
    x = np.unique(by_gamma)
    assert (by_gamma == by_gamma[:, :1, :1]).all() and len(x) > 50
    assert x.min() >= 255 * (128 / 255) ** 2 - 1 and x.max() <= 255 * (128 / 255) ** 0.5 + 1
    noisy = QueryView(gamma=(1, 1), noise=0.1).apply(tf.constant(gray), np.arange(200), 0).numpy() / 255
    std = noisy.std(axis=(1, 2, 3))
    assert std.max() < 0.12 and std.min() < 0.01 and abs(std.mean() - 0.05) < 0.01
