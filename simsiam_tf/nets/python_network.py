"""Backbones that a Python function of the user's builds: py:MODULE:FUNCTION."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
from keras.src.backend.common import global_state

from simsiam_tf.config.backbones import PIXELS
from simsiam_tf.nets.backbones import Description, to_features
from simsiam_tf.runtime.display_text import one_line
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.runtime.python_objects import import_object


def describe(options: Mapping[str, Any]) -> Description:
    """Describes the images of a function's network, by the option `pixels` or the function's attribute.

    Raises:
        UserError: neither says how a network with weights takes pixels, or the attribute is no key of PIXELS.
    """
    name, weights, pixels = (options[key] for key in ("name", "weights", "pixels"))
    function = _function(name)
    chosen = getattr(function, "pixels", None) if pixels == "auto" else pixels
    if chosen is None and weights:
        raise UserError(
            f"backbone=py:{name}+weights: how the network takes pixels is not known. Pass "
            f"pixels={', '.join(PIXELS)}, or give the function an attribute `pixels`."
        )
    if chosen is not None and chosen not in PIXELS:
        raise UserError(f"backbone=py:{name}: its pixels={chosen}: must be one of {', '.join(PIXELS)}.")
    return Description(PIXELS[chosen] if chosen else None)


def build(size: int, channels: int, options: Mapping[str, Any]) -> keras.Model:
    """FUNCTION(size, channels) as a backbone, pooled where it gives maps or tokens.

    Raises:
        UserError: the function returns no model of one input, or one that cannot be exported.
    """
    function, name = _function(options["name"]), options["name"]
    with _fresh_layer_names():
        network = function(size, channels)
    if not isinstance(network, keras.Model) or len(keras.tree.flatten(network.inputs)) != 1:
        raise UserError(
            f"backbone=py:{name}: gives {type(network).__name__}, not a Keras model of one input."
        )
    _check_config(network, name)
    scale = describe(options).scale
    reverse = scale is not None and scale.reverse
    if not reverse and len(network.output_shape) == 2:
        return network
    return to_features(network, network.input_shape[1], channels, reverse)


@contextlib.contextmanager
def _fresh_layer_names() -> Iterator[None]:
    """Restarts the numbers in Keras' automatic names, so that every build has the names of the first."""
    numbers = global_state.get_global_attribute("object_name_uids")
    global_state.set_global_attribute("object_name_uids", collections.defaultdict(int))
    try:
        yield
    finally:
        global_state.set_global_attribute("object_name_uids", numbers)


def _check_config(network: keras.Model, name: str) -> None:
    """Builds the network again from its configuration, as exports do. Raises UserError where that fails."""
    try:
        type(network).from_config(network.get_config())
    except Exception as error:  # noqa: BLE001 - Keras and layers raise whatever they like
        raise UserError(
            f"backbone=py:{name}: its network cannot be exported, as Keras cannot build it again from its "
            f"configuration: {one_line(error)[:200]}. Give custom layers a get_config, and take a network of "
            "another library whole: keras.Model(images, network(images)[:, 0]), with images = keras.Input(…)."
        ) from error


def _function(name: str) -> Callable[[int, int], keras.Model]:
    return import_object(name, "backbone", "py:MODULE:FUNCTION", "a function of (size, channels)")
