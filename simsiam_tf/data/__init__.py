"""Sources of images, and tf.data pipelines that make batches of views of them."""

from simsiam_tf.data.augment.augmentations import AUGMENTATIONS, Augmentation
from simsiam_tf.data.augment.eval_transform import preprocess
from simsiam_tf.data.augment.views import Views
from simsiam_tf.data.pipeline import augmentation_for, pretraining
from simsiam_tf.data.sources.base import Source, from_arrays, subset
from simsiam_tf.data.sources.open_source import open_source
from simsiam_tf.data.sources.python_source import from_images

__all__ = [
    "AUGMENTATIONS", "Augmentation", "Source", "Views", "augmentation_for", "from_arrays", "from_images",
    "open_source", "preprocess", "pretraining", "subset",
]  # fmt: skip
