"""Networks of keras.applications: keras:NAME, keras:NAME+imagenet."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import keras

from simsiam_tf.config.backbones import PIXELS
from simsiam_tf.nets.backbones import Description, to_features
from simsiam_tf.nets.keras_networks import to_training_layers
from simsiam_tf.runtime.display_text import one_line
from simsiam_tf.runtime.errors import UserError, nearest

# Beginning of a name → (how the network takes pixels, licence of its weights as the Hub names it); the first
# that fits counts. Pixels are as `preprocess_input` of keras.applications makes them; with "byte" the
# network's first layers normalise. NASNet is left out: its networks fit only some sizes of images.
FAMILIES = {
    "ResNet50V2": ("tf", "mit"), "ResNet101V2": ("tf", "mit"), "ResNet152V2": ("tf", "mit"),
    "ResNet": ("caffe", "mit"), "VGG": ("caffe", "cc-by-4.0"), "DenseNet": ("torch", "bsd-3-clause"),
    "MobileNetV3": ("byte", "apache-2.0"), "MobileNet": ("tf", "apache-2.0"),
    "EfficientNet": ("byte", "apache-2.0"), "ConvNeXt": ("byte", "apache-2.0"),
    "InceptionV3": ("tf", "apache-2.0"), "InceptionResNetV2": ("tf", "apache-2.0"), "Xception": ("tf", "mit"),
}  # fmt: skip
SIZES = {  # side in pixels of the images that the published weights were trained on, where not 224
    "Xception": 299, "Inception": 299, "EfficientNetB1": 240, "EfficientNetB2": 260, "EfficientNetB3": 300,
    "EfficientNetB4": 380, "EfficientNetB5": 456, "EfficientNetB6": 528, "EfficientNetB7": 600,
    "EfficientNetV2B1": 240, "EfficientNetV2B2": 260, "EfficientNetV2B3": 300, "EfficientNetV2S": 384,
    "EfficientNetV2M": 480, "EfficientNetV2L": 480,
}  # fmt: skip
MIN_SIZE = {"Xception": 71, "Inception": 75}  # least side of images in pixels, where not 32


def network_names() -> list[str]:
    """Names of the supported networks."""
    return [n for n in dir(keras.applications) if n[0].isupper() and _by_prefix(n, FAMILIES)]


def _by_prefix(name: str, table: Mapping[str, Any], default: Any = None) -> Any:
    return next((value for prefix, value in table.items() if name.startswith(prefix)), default)


def describe(options: Mapping[str, Any]) -> Description:
    """Describes the images that a network takes; with published weights, they have three channels.

    Raises:
        UserError: keras.applications has no such network.
    """
    name, weights, pixels = (options[key] for key in ("name", "weights", "pixels"))
    if name not in network_names():
        raise UserError(
            f"backbone=keras:{name}: no such network of keras.applications.{nearest(name, network_names())}"
        )
    family_pixels, licence = _by_prefix(name, FAMILIES)
    return Description(
        PIXELS[family_pixels if pixels == "auto" else pixels],
        _by_prefix(name, SIZES, 224) if weights else None,
        channels=3 if weights else None, licence=licence if weights else "",
        smallest=_by_prefix(name, MIN_SIZE, 32),
    )  # fmt: skip


def build(size: int, channels: int, options: Mapping[str, Any]) -> keras.Model:
    """A network of keras.applications with its maps averaged.

    Raises:
        UserError: the images are too small for it, or its weights cannot be downloaded.
    """
    name, weights = options["name"], options["weights"]
    description = describe(options)
    scale, smallest = description.scale, description.smallest
    if size < smallest:
        raise UserError(
            f"backbone=keras:{name}: needs views of {smallest} pixels or more. Pass image_size={smallest}."
        )
    arguments: dict[str, Any] = {"include_top": False, "weights": weights, "pooling": "avg"}
    try:
        network = getattr(keras.applications, name)(input_shape=(None, None, channels), **arguments)
    except Exception as error:  # noqa: BLE001 - keras raises Exception for a download
        raise _unavailable(name, weights, error) from error
    network = to_training_layers(network)
    if scale is not None and scale.reverse and channels == 3:
        return to_features(network, None, channels, reverse=True)
    return network


def _unavailable(name: str, weights: str | None, error: Exception) -> UserError:
    text = one_line(error)
    address = re.search(r"https?://\S+/([\w.-]+)", text)
    if not address:
        return UserError(f"backbone=keras:{name}+{weights}: {text[:300]}")
    home = os.environ.get("KERAS_HOME") or "~/.keras"
    reason = text.rpartition(" -- ")[2] if " -- " in text else "no network"
    return UserError(
        f"backbone=keras:{name}+{weights}: its weights cannot be downloaded ({reason}). Put the file of "
        f"{address[0].rstrip(':')} into {home}/models."
    )


def recognise(network: keras.Model) -> str | None:
    """The name in keras.applications of a network, by the names of its layers; None for any other network.

    A network with a classifier on top is recognised, too.
    """
    layers = _layer_names(network)
    compact = re.sub(r"\W|_", "", network.name).lower()
    candidates = (name for name in network_names() if compact.startswith(name.lower()))
    for name in sorted(candidates, key=len, reverse=True)[:2]:
        candidate_layers = _layer_names(_without_top(name, network.input_shape[-1]))
        if layers[: len(candidate_layers)] == candidate_layers:
            return name
    return None


def without_classifier(network: keras.Model) -> keras.Model:
    """A network of keras.applications cut before pooling and classifier; any other network unchanged."""
    name = recognise(network) if isinstance(network.layers[-1], keras.layers.Dense) else None
    if name is None:
        return network
    last = len(_without_top(name, network.input_shape[-1]).layers) - 1
    return keras.Model(network.input, network.layers[last].output, name=network.name)


def _without_top(name: str, channels: int) -> keras.Model:
    """A network of keras.applications with random weights, without pooling and classifier."""
    shape = (None, None, channels)
    return getattr(keras.applications, name)(include_top=False, weights=None, input_shape=shape)


def _layer_names(network: keras.Model) -> list[str]:
    """Names of the layers after the first, without the _1, _2 … that Keras adds to those without weights."""
    return [
        re.sub(r"_\d+$", "", layer.name) if layer.weights == [] else layer.name
        for layer in network.layers[1:]
    ]
