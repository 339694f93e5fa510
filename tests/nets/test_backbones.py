"""A backbone is one builder and one row."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from simsiam_tf import nets, optimizers
from simsiam_tf.command_line.cli import parse
from simsiam_tf.config import PretrainConfig
from simsiam_tf.config.backbones import BACKBONES, Backbone
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import build_run


def build_toy(size, channels, options):
    """One convolution; `width` scales it."""
    images = keras.Input((size, size, channels))
    x = layers.Conv2D(round(8 * options["width"]), 3, activation="relu", name="only")(images)
    return keras.Model(images, layers.GlobalAveragePooling2D()(x), name=options["name"])


def test_a_builder_and_a_row_are_a_backbone(monkeypatch):
    """A toy is chosen by its name, gets the pixels of its rule and takes a training step."""
    argv = ["--backbone=toy", "--width=2", "--data=digits", "--d=32", "--batch_size=8"]
    with pytest.raises(UserError, match="backbone=toy: no such value"):
        parse(PretrainConfig, argv)
    row = Backbone(f"{__name__}:build_toy", {"mean": (0.5,), "std": (0.25,)})
    monkeypatch.setitem(BACKBONES, "toy", row)
    config = parse(PretrainConfig, argv)
    _, views = build_run.open_data(config)
    assert (views.augmentation.mean, views.augmentation.std) == ((0.5,), (0.25,))
    model = build_run.build_model(config, channels=1, size=8)
    assert model.backbone.name == "toy" and model.backbone.output_shape == (None, 16)
    model.compile(optimizers.SGD(0.1))
    kernel = model.backbone.get_layer("only").kernel
    before = kernel.numpy()
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 8, 1)).astype(np.float32)
    loss = model.step(tuple(tf.constant(view) for view in x))["loss"]
    assert np.isfinite(loss) and np.abs(kernel.numpy() - before).max() > 0


@pytest.mark.slow
def test_every_row_is_built():
    for name in BACKBONES:
        assert nets.build_backbone(name, 8, 1, "small", 0.125).output_shape == (
            None,
            64 if nets.RESNETS[name][0] == "basic" else 256,
        )
    assert BACKBONES.keys() == nets.RESNETS.keys()
    with pytest.raises(ValueError, match="resnet19: no such value. Did you mean resnet18"):
        nets.build_backbone("resnet19", 8, 1, "small", 0.125)
