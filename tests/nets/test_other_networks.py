"""Networks of keras.applications, keras-hub, files and functions as backbones: names, pixels, features."""

import dataclasses
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_sample_images

from simsiam_tf import nets
from simsiam_tf.config.backbones import PIXELS, parse_backbone
from simsiam_tf.data import AUGMENTATIONS, Views
from simsiam_tf.nets import keras_applications, keras_networks
from simsiam_tf.pretrained import network_file
from simsiam_tf.runtime.errors import UserError

NETWORKS = ["ResNet50V2", "EfficientNetV2B0", "MobileNetV3Small", "ConvNeXtTiny", "DenseNet121", "ResNet50"]


def pictures(size):
    """Two photographs: uint8 [2, size, size, 3]."""
    resized = [tf.image.resize(image, [size, size], antialias=True) for image in load_sample_images().images]
    return np.round(resized).astype(np.uint8)


def normalised(description, images):
    augmentation = dataclasses.replace(
        AUGMENTATIONS["imagenet"], size=images.shape[1], **description.pixel_rule
    )
    return Views(augmentation, 1).normalise(tf.constant(images))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("resnet18", ("", "resnet18", None)), ("keras:VGG16", ("keras", "VGG16", None)),
        ("keras:VGG16+imagenet", ("keras", "VGG16", "imagenet")),
        ("keras:VGG16+weights", ("keras", "VGG16", "imagenet")),
        ("hub:vit_base+weights", ("hub", "vit_base", "weights")),
        ("hub:hf://user/c++/x", ("hub", "hf://user/c++/x", None)),
        ("file:/a+b/c.keras", ("file", "/a+b/c.keras", None)),
        ("py:package.module:function+weights", ("py", "package.module:function", "weights")),
    ],
)  # fmt: skip
def test_names_of_backbones(text, parts):
    parsed = parse_backbone(text)
    assert (parsed.kind, parsed.name, parsed.weights) == parts


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("resnet19", "no such value. Did you mean resnet1"), ("kreas:VGG16", "Choose from .*keras:NAME"),
        ("keras:", "names no network. Pass backbone=keras:NAME"), ("hub:+weights", "names no network"),
    ],
)  # fmt: skip
def test_what_names_no_backbone(text, problem):
    with pytest.raises(UserError, match=problem):
        parse_backbone(text)


@pytest.mark.parametrize("mode", ["torch", "tf", "caffe"])
def test_pixels_are_those_of_keras_applications(mode):
    scale, images = PIXELS[mode], pictures(8)
    x = normalised(nets.Description(scale), images).numpy()
    x = x[..., ::-1] if scale.reverse else x
    expected = keras.applications.imagenet_utils.preprocess_input(images.astype(np.float32), mode=mode)
    np.testing.assert_allclose(x, expected, atol=1e-4 * np.abs(expected).max())


def test_pixels_of_the_other_scales():
    images = pictures(8)
    for name, expected in (("unit", images / 255), ("byte", images)):
        np.testing.assert_allclose(normalised(nets.Description(PIXELS[name]), images), expected, atol=1e-4)


QUICK = ("MobileNetV3Small",)


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS]
)
def test_features_are_those_of_keras_applications(name):
    """From pictures to features: by our pixel rule and layers, and by Keras' own function and network."""
    images = pictures(96)
    keras.utils.set_random_seed(0)
    network = nets.build_backbone(f"keras:{name}", 96, 3)
    keras.utils.set_random_seed(0)
    reference = getattr(keras.applications, name)(
        include_top=False, weights=None, pooling="avg", input_shape=(None, None, 3)
    )
    module = sys.modules[getattr(keras.applications, name).__module__]
    expected = reference(module.preprocess_input(images.astype(np.float32))).numpy()
    features = network(normalised(nets.describe_backbone(f"keras:{name}"), images), training=False).numpy()
    assert features.shape == expected.shape
    np.testing.assert_allclose(features, expected, atol=2e-5 * np.abs(expected).max())


def test_batch_normalisation_of_other_networks_becomes_ours():
    """Also where its axis is counted from the front."""
    network = nets.build_backbone("keras:ResNet50V2", 32, 3)
    kinds = {type(layer) for layer in network._flatten_layers()}
    assert nets.BatchNorm in kinds and keras.layers.BatchNormalization not in kinds
    stock = keras_networks.to_stock_layers(network)
    assert nets.BatchNorm not in {type(layer) for layer in stock._flatten_layers()}


def test_sizes_and_names_that_do_not_fit():
    with pytest.raises(UserError, match="keras:EfficientNetV2B9: no such network.*EfficientNetV2B"):
        nets.describe_backbone("keras:EfficientNetV2B9")
    with pytest.raises(UserError, match="views of 32 pixels or more. Pass image_size=32"):
        nets.build_backbone("keras:ResNet50V2", 28, 1)


def test_weights_without_a_network_name_their_file(monkeypatch):
    def fail(*_, **__):
        raise Exception("URL fetch failure on https://example.org/a/b_notop.h5: None -- [Errno -2] unknown")

    monkeypatch.setattr(keras.applications, "ResNet50V2", fail)
    with pytest.raises(
        UserError, match=r"cannot be downloaded \(\[Errno -2\] unknown\).*b_notop.h5 into .*models"
    ):
        nets.build_backbone("keras:ResNet50V2+imagenet", 224, 3)


@pytest.mark.slow
def test_files_of_keras_applications_are_recognised(tmp_path):
    network = keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3), classes=7)
    assert keras_applications.recognise(network) == "MobileNetV2"
    assert network_file.pixel_scale(network, "x.keras") == PIXELS["tf"]
    x = tf.random.stateless_uniform([2, 96, 96, 3], [0, 0], -1, 1)
    features = network_file.as_backbone(network, PIXELS["tf"])(x, training=False)  # not the 7 probabilities
    maps = keras.Model(network.input, network.get_layer("out_relu").output)(x, training=False)
    np.testing.assert_allclose(features, tf.reduce_mean(maps, [1, 2]), atol=1e-6)
    other = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()], name="mobilenetv2")
    assert keras_applications.recognise(other) is None
    with pytest.raises(UserError, match="x.keras: no card beside it .* Pass augmentation=.* pixels=torch"):
        network_file.pixel_scale(other, "x.keras")


def test_maps_and_tokens_become_features():
    images = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(5, 3, name="maps")(images)
    tokens = keras.layers.Reshape((36, 5))(maps)
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), tf.float32)
    for output, pool, token in (
        (maps, lambda y: y.mean((1, 2)), False), (tokens, lambda y: y.mean(1), False),
        (tokens, lambda y: y[:, 0], True),
    ):  # fmt: skip
        network = keras.Model(images, output)
        features = nets.backbones.to_features(network, 8, 3, has_class_token=token)(x)
        np.testing.assert_allclose(features, pool(network(x).numpy()), atol=1e-6)
    flipped = nets.backbones.to_features(keras.Model(images, maps), 8, 3, reverse=True)
    np.testing.assert_allclose(
        flipped(x), keras.Model(images, maps)(x[..., ::-1]).numpy().mean((1, 2)), atol=1e-6
    )
    assert flipped.get_layer("maps").output.shape == maps.shape, "its layers are the backbone's"


def test_a_function_of_the_users(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import keras\n"
        "def net(size, channels):\n"
        "    x = keras.Input((size, size, channels))\n"
        "    return keras.Model(x, keras.layers.Conv2D(6, 3)(x))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    network = nets.build_backbone("py:mine:net", 9, 2)
    assert network.input_shape == (None, 9, 9, 2) and network.output_shape == (None, 6)
    again = nets.build_backbone("py:mine:net", 9, 2)  # for a final comparison with random weights, say
    assert [layer.name for layer in again.layers] == [layer.name for layer in network.layers]
    assert nets.describe_backbone("py:mine:net").scale is None
    assert nets.describe_backbone("py:mine:net", "tf").scale == PIXELS["tf"]
    with pytest.raises(UserError, match="how the network takes pixels is not known. Pass pixels=torch"):
        nets.describe_backbone("py:mine:net+weights")
    for wrong in ("py:mine:nothing", "py:nowhere:net", "py:mine"):
        with pytest.raises(UserError, match="cannot be imported"):
            nets.build_backbone(wrong, 9, 2)


@pytest.mark.parametrize("place", ["the current folder", "PYTHONPATH"])
def test_the_network_of_ones_own_in_the_documents(tmp_path, monkeypatch, place):
    page = (Path(__file__).parents[2] / "docs" / "networks.md").read_text()
    code = page.split("`my_networks.py`:\n\n```python\n")[1].split("```")[0]
    (tmp_path / "my_networks.py").write_text(code)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)] if place == "PYTHONPATH" else [*sys.path])
    monkeypatch.chdir("/" if place == "PYTHONPATH" else tmp_path)
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    for size, channels in ((8, 1), (32, 3)):
        network = nets.build_backbone("py:my_networks:small", size, channels)
        assert network.input_shape[1:] == (size, size, channels) and network.output_shape == (None, 128)


BROKEN = """
import keras

class Scaled(keras.layers.Layer):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor
    def call(self, x):
        return self.factor * x

def net(size, channels):
    x = keras.Input((size, size, channels))
    return keras.Model(x, Scaled(2.0)(x))
"""


def test_a_function_whose_network_cannot_be_exported_is_refused_before_it_is_trained(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(UserError, match="cannot be exported.*again from its configuration.*get_config"):
        nets.build_backbone("py:broken:net", 9, 2)
