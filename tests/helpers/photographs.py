"""Two photographs as networks of both sides see them."""

import tensorflow as tf
from sklearn.datasets import load_sample_images

from simsiam_tf.data import AUGMENTATIONS, Views

TOLERANCE = 1e-4  # of the largest feature


def photographs(size):
    """Two photographs as both see them: normalised [2, size, size, 3]."""
    augmentation = AUGMENTATIONS["imagenet" if size > 64 else "cifar"]
    made = Views(augmentation, 1)
    return tf.stack(
        [made.normalise(made.centre(tf.constant(i))) for i in load_sample_images().images]
    ).numpy()
