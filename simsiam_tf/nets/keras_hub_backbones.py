"""Networks of keras-hub: hub:PRESET, a preset's name, its folder, or its address (hf://…, kaggle://…)."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from simsiam_tf.config.backbones import PIXELS, PixelScale
from simsiam_tf.nets.backbones import Description, to_features
from simsiam_tf.nets.keras_networks import to_training_layers
from simsiam_tf.runtime.display_text import one_line
from simsiam_tf.runtime.errors import UserError


def import_keras_hub(name: str) -> Any:
    """The module keras_hub. Raises UserError, which begins with `name`, where it is not installed."""
    if importlib.util.find_spec("keras_hub") is None:
        raise UserError(f"{name}: needs keras-hub: pip install 'simsiam-tf[kerashub]'.")
    return importlib.import_module("keras_hub")


def describe(options: Mapping[str, Any]) -> Description:
    """Describes the images that a preset's network takes, by its image converter and its input.

    Raises:
        UserError: keras-hub or the preset is missing; the preset would run code; or nothing says how its
            network takes pixels.
    """
    name, weights, pixels = (options[key] for key in ("name", "weights", "pixels"))
    hub = import_keras_hub(f"backbone=hub:{name}")
    _check_preset(name, options["trust_code"])
    converter = _from_preset(hub.layers.ImageConverter, name) if weights or pixels == "auto" else None
    scale = PIXELS[pixels] if pixels != "auto" else _scale(name, converter)
    size = converter.image_size[0] if converter is not None and converter.image_size else None
    if not weights:
        return Description(scale)
    match _read_json(name, "config.json"):  # quicker than to build the network
        case {"config": {"image_shape": [side, _, channels]} | {"input_shape": [side, _, channels]}}:
            pass
        case _:
            network = _from_preset(hub.models.Backbone, name, load_weights=False)
            _, side, _, channels = keras.tree.flatten(network.input)[0].shape
    return Description(scale, side or size, side is not None, channels)


def _scale(name: str, converter: Any) -> PixelScale:
    """The converter's pixel · scale + offset as (pixel / 255 − mean) / std."""
    if converter is None:
        raise UserError(
            f"backbone=hub:{name}: has no image converter, which would say how it takes pixels. "
            f"Pass pixels={', '.join(PIXELS)}."
        )
    scales, offsets = (
        [float(v) for v in keras.tree.flatten(value)] if value is not None else [default]
        for value, default in ((converter.scale, 1.0), (converter.offset, 0.0))
    )
    count = max(len(scales), len(offsets))
    scales, offsets = (values * count if len(values) == 1 else values for values in (scales, offsets))
    mean = tuple(-offset / (255 * scale) for scale, offset in zip(scales, offsets, strict=True))
    return PixelScale(mean, tuple(1 / (255 * scale) for scale in scales))


def build(size: int, channels: int, options: Mapping[str, Any]) -> keras.Model:
    """The backbone of a preset, pooled; random unless options["weights"] asks for the preset's weights."""
    hub, name = import_keras_hub(f"backbone=hub:{options['name']}"), options["name"]
    scale = describe(options).scale  # first, since it checks the preset's files
    network = _from_preset(hub.models.Backbone, name, load_weights=False)
    shape, config = keras.tree.flatten(network.input)[0].shape, network.get_config()
    wanted = (size if shape[1] else None, size if shape[1] else None, channels)
    key = "image_shape" if "image_shape" in config else "input_shape"
    if options["weights"]:
        network = _from_preset(
            hub.models.Backbone, name, **({} if wanted == shape[1:] else {key: wanted}), load_weights=True
        )
    else:
        network = type(network).from_config({**config, key: wanted})
    has_token = bool(getattr(network, "use_class_token", False)) or type(network).__name__ in TOKENS
    reverse = scale is not None and scale.reverse
    return to_training_layers(to_features(network, wanted[0], channels, reverse, has_token))


TOKENS = {"DINOV2Backbone", "DINOV3Backbone", "DeiTBackbone"}  # whose first token is always a class token


def _check_preset(name: str, trust_code: bool) -> None:
    """Raises UserError for a preset that would run code from outside keras-hub, unless trust_code."""
    for file in () if trust_code else ("config.json", "image_converter.json", "preprocessor.json"):
        pending = [_read_json(name, file)]
        while pending:
            value = pending.pop()
            if isinstance(value, dict) and "class_name" in value:
                trusted = str(value.get("module")).startswith("keras_hub.src.models.")
                trusted &= value.get("registered_name") in (None, f"keras_hub>{value['class_name']}")
                if not trusted and (value.get("module"), value["class_name"]) != ("keras", "DTypePolicy"):
                    raise UserError(
                        f"backbone=hub:{name}: its {file} asks for "
                        f"{value.get('module')}.{value['class_name']}, which is none of keras-hub's; its "
                        "code would run with trust_code=true, which is for "
                        "presets of people you trust."
                    )
            items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            pending += items


def _read_json(name: str, file: str) -> Any:
    """The content of a preset's JSON file; None where it cannot be read: `_from_preset` then says why."""
    from keras_hub.src.utils.preset_utils import get_file

    path = Path(name).expanduser()
    try:
        return json.loads(Path(get_file(str(path) if path.is_dir() else name, file)).read_text("utf-8"))
    except Exception:  # noqa: BLE001 - each kind of address raises its library's errors
        return None


def _from_preset(cls: Any, name: str, **options: Any) -> Any:
    path = Path(name).expanduser()
    try:
        return cls.from_preset(str(path) if path.is_dir() else name, **options)
    except Exception as error:  # noqa: BLE001 - each kind of address raises its library's errors
        raise UserError(
            f"backbone=hub:{name}: cannot be opened ({one_line(error)[:200]}). Without a network, pass the "
            "preset's folder, with config.json, model.weights.h5, image_converter.json: hub:/path/to/folder."
        ) from error
