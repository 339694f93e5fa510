"""The augmentation's draws: crop boxes against torchvision's, distributions, independence."""

import math

import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf.data.augment import random_layers
from simsiam_tf.data.augment.crops import RandomResizedCrop
from simsiam_tf.data.sampling import uniforms

DRAWS = 24_000


def ks(sample, low, high) -> float:
    """Kolmogorov–Smirnov distance to the uniform distribution, in units of its 1 % bound."""
    x = np.sort(np.asarray(sample, np.float64))
    cdf = (x - low) / (high - low)
    n = len(x)
    distance = max((np.arange(1, n + 1) / n - cdf).max(), (cdf - np.arange(n) / n).max())
    return distance * math.sqrt(n) / 1.63


def drawn(layer) -> dict:
    u = uniforms(3, 5, DRAWS, layer.draws)
    images = tf.zeros([DRAWS, 2, 2, 1])
    return {name: x.numpy() for name, x in layer.transformations(u, images).items()}


def boxes(layer, u, height, width) -> np.ndarray:
    u = tf.constant(u)
    return layer.boxes(layer.tried_sides(u), u[:, -2:], height, width).numpy()


def slow_box(u, height, width, scale, ratio) -> tuple:
    """torchvision's RandomResizedCrop.get_params in Python, fed with u."""
    for k in range(10):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * u[k])
        low, high = math.log(ratio[0]), math.log(ratio[1])
        aspect = math.exp(low + (high - low) * u[10 + k])
        w, h = int(round(math.sqrt(area * aspect))), int(round(math.sqrt(area / aspect)))
        if 0 < w <= width and 0 < h <= height:
            return int(u[20] * (height - h + 1)), int(u[21] * (width - w + 1)), h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = int(round(w / ratio[0]))
    elif width / height > ratio[1]:
        w = int(round(h * ratio[1]))
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize("size", [(375, 500), (32, 32), (70, 210), (400, 90), (20, 400)], ids=str)
def test_boxes_equal_torchvisions(size):
    layer = RandomResizedCrop(32)
    u = uniforms(1, size[0], 3000, layer.draws).numpy()
    ours = boxes(layer, u, *size)
    theirs = np.array([slow_box(row.astype(float), *size, layer.area, layer.aspect) for row in u])
    differ = (ours != theirs).any(axis=1)
    # float32 rounds a rare h or w the other way, by one pixel.
    assert differ.mean() < 0.002 and np.abs(ours - theirs).max() <= 1


def test_boxes_of_extreme_images_are_torchvisions_centre_crop():
    layer = RandomResizedCrop(32)
    u = uniforms(0, 0, 50, layer.draws)
    assert {tuple(b) for b in boxes(layer, u, 20, 400)} == {(0, 186, 20, 27)}  # 20 · 4/3
    assert {tuple(b) for b in boxes(layer, u, 400, 20)} == {(186, 0, 27, 20)}  # 20 / (3/4)


@pytest.mark.parametrize("edge", [0.0, 1.0 - 2.0**-23])
def test_boxes_stay_inside_at_the_ends_of_the_range(edge):
    layer = RandomResizedCrop(32)
    for height, width in [(1, 1), (3, 2), (32, 32), (333, 500), (5000, 4097)]:
        u = np.full([200, layer.draws], edge, np.float32)
        u[:, :-2] = uniforms(0, 0, 200, layer.draws - 2)
        top, left, h, w = boxes(layer, u, height, width).T
        assert min(top.min(), left.min()) >= 0 and min(h.min(), w.min()) >= 1
        assert (top + h <= height).all() and (left + w <= width).all()


def test_area_and_aspect_are_uniform_and_independent():
    layer = RandomResizedCrop(32)
    top, left, h, w = boxes(layer, uniforms(0, 0, 2 * DRAWS, layer.draws), 2000, 2000).T
    area, aspect = h * w / 2000**2, np.log(w / h)
    assert area.min() > 0.199 and area.max() > 0.97
    assert np.abs(aspect).max() < math.log(4 / 3) + 2e-3
    # On a square image every box of at most 3/4 of the area fits, so these are unconditional.
    free = area < 0.74
    area, aspect = area[free], aspect[free]
    assert len(area) > 20_000
    assert ks(area, 0.2, 0.74) < 1
    assert ks(aspect, -math.log(4 / 3), math.log(4 / 3)) < 1
    place = np.stack([area, aspect, (top / (2001 - h))[free], (left / (2001 - w))[free]])
    assert ks(place[2], 0, 1) < 1 and ks(place[3], 0, 1) < 1
    assert np.abs(np.corrcoef(place) - np.eye(4)).max() < 0.03


def test_jitter_draws_are_uniform_and_independent():
    t = drawn(random_layers.RandomColorJitter())
    chosen = (t["factors"] != 1).any(axis=1)
    assert abs(chosen.mean() - 0.8) < 0.01
    assert (t["factors"][~chosen] == 1).all() and (t["hue"][~chosen] == 0).all()
    amounts = np.concatenate([t["factors"], t["hue"][:, None]], axis=1)[chosen]
    for k in range(3):
        assert ks(amounts[:, k], 0.6, 1.4) < 1
    assert ks(amounts[:, 3], -0.1, 0.1) < 1
    assert np.abs(np.corrcoef(amounts.T) - np.eye(4)).max() < 0.03


def test_all_orders_of_the_jitter_are_equally_frequent():
    rank = drawn(random_layers.RandomColorJitter())["rank"]
    orders, counts = np.unique(rank, axis=0, return_counts=True)
    assert len(orders) == 24
    assert ((counts - DRAWS / 24) ** 2 / (DRAWS / 24)).sum() < 49.7  # χ², 23 degrees, 0.1 %


def test_layers_act_with_their_probabilities():
    assert abs(drawn(random_layers.RandomGrayscale())["chosen"].mean() - 0.2) < 0.01
    assert abs(drawn(random_layers.RandomHorizontalFlip())["chosen"].mean() - 0.5) < 0.01
    blur = drawn(random_layers.RandomGaussianBlur())
    assert abs(blur["chosen"].mean() - 0.5) < 0.01
    assert ks(blur["sigma"], 0.1, 2.0) < 1 and ks(blur["sigma"][blur["chosen"]], 0.1, 2.0) < 1
