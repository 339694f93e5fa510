"""Two photographs, preprocessed for networks of TensorFlow and PyTorch."""

import tensorflow as tf
from sklearn.datasets import load_sample_images

from simsiam_tf.data import AUGMENTATIONS, Views

TOLERANCE = 1e-4  # of the largest feature


def photographs(size):
    """Two photographs, normalised: [2, size, size, 3]."""
    augmentation = AUGMENTATIONS["imagenet" if size > 64 else "cifar"]
    views = Views(augmentation, 1)
    return tf.stack(
        [views.normalise(views.evaluation_view(tf.constant(i))) for i in load_sample_images().images]
    ).numpy()
