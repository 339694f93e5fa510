"""Augmentation: keras-cv layers, the random views that they make, and the view for evaluation."""

from simsiam_tf.data.augment.crops import RandomResizedCrop
from simsiam_tf.data.augment.random_layers import (
    RandomColorJitter,
    RandomGaussianBlur,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomSolarization,
)

__all__ = [
    "RandomColorJitter", "RandomGaussianBlur", "RandomGrayscale", "RandomHorizontalFlip", "RandomResizedCrop",
    "RandomSolarization",
]  # fmt: skip
