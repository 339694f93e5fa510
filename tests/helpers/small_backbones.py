"""Small backbones, as a finished run exports them."""

import dataclasses
import json

import keras

from simsiam_tf import nets
from simsiam_tf.data import Views, open_source, pipeline
from simsiam_tf.pretrained import backbone_file


def exported(folder, augmentation, channels, data="digits", seed=0, settled=False, width=0.125):
    """A work folder with nothing but an exported backbone of width × 512 features, and its card.

    settled: whether its BN has seen images of `data`, so that their features differ.
    """
    keras.mixed_precision.set_dtype_policy("float32")
    keras.utils.set_random_seed(seed)
    backbone = nets.resnet10(stem="small", width=width, channels=channels)
    if settled:
        preprocessing = Views(augmentation)
        images = pipeline.evaluation_views(open_source(data), preprocessing, range(256))
        for x in [*images] * 30:
            backbone(x, training=True)
    views = json.loads(json.dumps(dataclasses.asdict(augmentation)))
    folder.mkdir(parents=True, exist_ok=True)
    backbone_file.export_network(
        backbone, folder, {"step": 1, "views": views, "configuration": {"data": data}}
    )
    return folder


def two_convolutions(size, channels):
    """A network that is traced in no time, for --backbone=py:helpers.small_backbones:two_convolutions."""
    del size
    images = x = keras.Input((None, None, channels))
    for i, width in enumerate((8, 16)):
        x = keras.layers.Conv2D(width, 3, 2, "same", activation="relu", name=f"blocks_{i}_conv")(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
