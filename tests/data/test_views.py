"""The augmentations of the compared methods, and probabilities that differ between views."""

import dataclasses

import numpy as np
import tensorflow as tf

from simsiam_tf.data.augment import random_layers
from simsiam_tf.data.augment.augmentations import AUGMENTATIONS
from simsiam_tf.data.augment.views import Views
from simsiam_tf.data.sampling import uniforms


def test_each_view_may_have_its_own_probabilities():
    augmentation = dataclasses.replace(
        AUGMENTATIONS["byol"], size=16, flip_p=0.0, jitter_p=0.0, gray_p=0.0, area=(1.0, 1.0)
    )
    views = Views(augmentation, 2)
    image = np.random.default_rng(0).integers(0, 120, (16, 16, 3)).astype(np.uint8)
    images, u = np.stack([image] * 500), uniforms(0, 0, 500, views.draws)
    crops = [tf.constant(images)] * 2
    one, two = (views.denormalise(x).numpy() for x in views.augment(crops, u))
    plain = [(np.abs(x.astype(int) - images).max(axis=(1, 2, 3)) <= 1).mean() for x in (one, two)]
    assert plain[0] < 0.15 and 0.87 < plain[1] < 0.97  # a blur of σ below 0.25 cannot be seen
    light = [tf.fill(images.shape, tf.constant(200, tf.uint8))] * 2
    one, two = (views.denormalise(x).numpy() for x in views.augment(light, u))
    inverted = [(x < 100).all(axis=(1, 2, 3)).mean() for x in (one, two)]
    assert inverted[0] == 0 and 0.14 < inverted[1] < 0.26


def test_augmentations_have_the_numbers_of_their_papers():
    base, simclr, byol = (AUGMENTATIONS[name] for name in ("imagenet", "simclr", "byol"))
    assert (base.area, base.jitter, base.blur_p) == ((0.2, 1.0), (0.4, 0.4, 0.4, 0.1), 0.5)
    assert (simclr.area, simclr.jitter, simclr.blur_p) == ((0.08, 1.0), (0.8, 0.8, 0.8, 0.2), 0.5)
    assert (byol.area, byol.jitter) == ((0.08, 1.0), (0.4, 0.4, 0.2, 0.1))
    per_view = [byol.for_view(i) for i in range(4)]  # two pairs an image count on from the first
    assert [v.blur_p for v in per_view] == [1.0, 0.1, 1.0, 0.1]
    assert [v.solarize_p for v in per_view] == [0.0, 0.2, 0.0, 0.2]
    for augmentation in (base, byol):
        alone = augmentation.with_crop_and_flip_alone()
        assert Views(alone, 2).layers[1][0].__class__ is random_layers.RandomHorizontalFlip
        assert len(Views(alone, 2).layers[1]) == 1
