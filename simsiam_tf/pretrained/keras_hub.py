"""Converts ResNets of this package to keras-hub's ResNetBackbone, and presets of the latter to the former.

In this module "ours" are the networks of this package. Files of a preset are checked before they are used.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np

from simsiam_tf import nets
from simsiam_tf.nets.keras_hub_backbones import import_keras_hub
from simsiam_tf.nets.variable_paths import variables_by_path
from simsiam_tf.nets.whitening import without_whitening
from simsiam_tf.pretrained import backbone_file, keras_file_check, torch_weights
from simsiam_tf.pretrained.torch_weights.backbone_layout import architecture_of
from simsiam_tf.runtime.display_text import counted, one_line, printable_text
from simsiam_tf.runtime.errors import UserError

OPTION = "layout=keras_hub"  # the option of `convert` that asks for keras-hub, for messages
CONFIG, WEIGHTS = "config.json", "model.weights.h5"
_REGISTERED = ("keras_hub>ResNetBackbone", "keras_nlp>ResNetBackbone")
_DIFFERENCE = 1e-4  # largest difference between features of both networks, relative to the largest feature


def to_keras_hub(backbone: keras.Model, dtype: Any = "float32") -> Any:
    """keras-hub's ResNetBackbone with the weights of one of our ResNets.

    It maps normalised images [B, H, W, C] to the feature map [B, ⌈H/32⌉, ⌈W/32⌉, F], whose mean over H and W
    is our features [B, F], without their whitening.

    dtype: the dtype policy of its layers, or its name.

    Raises:
        UserError: keras-hub is missing, the network is none of `nets.RESNETS`, or keras-hub lacks it.
    """
    import_keras_hub(OPTION)
    backbone = without_whitening(backbone)
    name, channels = check_architecture(backbone)
    network = _build(name, channels, dtype)
    _copy(backbone, network, to_hub=True)
    return network


def check_architecture(backbone: keras.Model, option: str = OPTION) -> tuple[str, int]:
    """(key of `nets.RESNETS`, channels) of one of our ResNets.

    option: beginning of the message: the option, with its value, that asks for keras-hub.

    Raises:
        UserError: the network is none of `nets.RESNETS`, or keras-hub lacks it.
    """
    backbone = without_whitening(backbone)
    architecture = architecture_of(torch_weights.to_torch(backbone), "")
    stem, (name, width) = torch_weights.stem_of(backbone), (architecture[key] for key in ("name", "width"))
    if stem != "imagenet" or width != 1 or name.startswith("wide"):
        raise UserError(
            f"{option}: keras-hub has no {name} with a {stem} stem and width {width:g}: its ResNets "
            "have the imagenet stem and width 1 and are not wide."
            + " `python -m simsiam_tf.export` writes any."
            * option.startswith("layout")
        )
    return name, architecture["channels"]


def from_keras_hub(folder: Path) -> tuple[keras.Model, dict[str, Any]]:
    """(our ResNet with the weights of a preset, the arguments of `nets.resnet` that make it).

    No class that a preset names is built. The preset's configuration must be that of one of `nets.RESNETS`,
    and its weights must be numbers in a plain HDF5 file, as many as that network has.

    Raises:
        UserError: keras-hub is missing, the preset has another network, a file is damaged or malicious, or
            our features differ from keras-hub's.
    """
    name, channels = read_architecture(folder)
    try:
        stored = keras_file_check.count_values((folder / WEIGHTS).read_bytes())
        import_keras_hub(OPTION)
        network = _build(name, channels)
        if stored != network.count_params():
            raise keras_file_check.Refused(f"it has {stored} values, a {name} {network.count_params()}")
        network.load_weights(str(folder / WEIGHTS))
        if not all(np.isfinite(variable.numpy()).all() for variable in network.weights):
            raise keras_file_check.Refused("it holds NaN or infinite values")
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - h5py and Keras raise whatever the file provokes
        raise UserError(f"weights={folder}: its {WEIGHTS} is refused: {reason(error)}.") from error
    architecture = {"name": name, "stem": "imagenet", "width": 1.0, "channels": channels}
    backbone = nets.resnet(**architecture)
    _copy(backbone, network, to_hub=False)
    images = np.random.default_rng(0).normal(size=(2, 64, 64, channels)).astype(np.float32)
    hub_features = np.asarray(network(images, training=False)).mean((1, 2))
    difference = np.abs(np.asarray(backbone(images, training=False)) - hub_features).max()
    if not difference <= _DIFFERENCE * np.abs(hub_features).max():
        raise UserError(
            f"weights={folder}: is not converted: the features of this version of keras-hub differ from ours "
            f"by {difference:.2g} (largest feature {np.abs(hub_features).max():.2g}). Try keras-hub 0.32."
        )
    return backbone, architecture


def _arguments(name: str) -> dict[str, Any]:
    """The arguments of keras-hub's ResNetBackbone for one of `nets.RESNETS`, as in config.json."""
    block, counts = nets.RESNETS[name]
    return {
        "input_conv_filters": [64], "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 128, 256, 512], "stackwise_num_blocks": list(counts),
        "stackwise_num_strides": [1, 2, 2, 2], "block_type": f"{block}_block", "use_pre_activation": False,
    }  # fmt: skip


def _build(name: str, channels: int, dtype: Any = "float32") -> Any:
    shape = (None, None, channels)
    return import_keras_hub(OPTION).models.ResNetBackbone(
        **_arguments(name), image_shape=shape, data_format="channels_last", dtype=dtype, name=name
    )


def _copy(backbone: keras.Model, hub_network: keras.Model, to_hub: bool) -> None:
    """Copies all weights from our ResNet to keras-hub's (to_hub=True), or the other way."""
    hub = variables_by_path(hub_network)
    pairs = [(variable, hub.pop(hub_path(path))) for path, variable in variables_by_path(backbone).items()]
    assert not hub, [*hub]
    for pair in pairs:
        source, target = pair if to_hub else pair[::-1]
        target.assign(source)


def hub_path(path: str) -> str:
    """The path of a variable in keras-hub's ResNet, given that in ours."""
    layer, _, variable = path.rpartition("/")
    layer = layer.replace("downsample_bn", "bn0").replace("downsample", "conv0").replace("stem_", "conv1_")
    block = re.fullmatch(r"stage(\d)_block(\d+)_(conv|bn)(\d)", layer)
    if block:
        stage, number, kind, place = block.groups()
        layer = f"stack{int(stage) - 1}_block{int(number) - 1}_{place}_{kind}"
    return f"{layer}/{variable}"


def read_architecture(folder: Path) -> tuple[str, int]:
    """(key of `nets.RESNETS`, channels) of a preset, by its config.json.

    Raises:
        UserError: the file is missing, describes none of `nets.RESNETS`, or states more channels than the
            file of weights has room for.
    """
    config = read_json(folder / CONFIG)
    kind = config.get("class_name")
    if kind != "ResNetBackbone" or config.get("registered_name") not in _REGISTERED:
        raise UserError(
            f"weights={folder}: its {CONFIG} describes {printable_text(str(kind))[:100]}, not keras-hub's "
            "ResNetBackbone, which alone is converted."
        )
    values = backbone_file.card_entries(config, "config")
    stated = {key: value for key, value in values.items() if key not in ("name", "trainable", "dtype")}
    shape = stated.pop("image_shape", None)
    channels = shape[-1] if isinstance(shape, list) and len(shape) == 3 else None
    for name in nets.RESNETS:
        if stated == _arguments(name) and type(channels) is int and channels > 0:
            if _weights_size(folder) < 2 * 49 * 64 * channels:  # bytes of the first kernel, 16 bits a number
                raise UserError(
                    f"weights={folder}: its {WEIGHTS} is too short for {counted(channels, 'channel')}."
                )
            return name, channels
    if stated.get("use_pre_activation"):
        network = "a ResNet v2 (use_pre_activation)"
    elif str(stated.get("block_type")).endswith("_vd"):
        network = "a ResNet-vd"
    else:
        listed = ", ".join(f"{key}={value}" for key, value in {**stated, "image_shape": shape}.items())
        network = printable_text(listed)[:300]
    raise UserError(
        f"weights={folder}: is {network}, which is not a network of this package: {', '.join(nets.RESNETS)}."
    )


def _weights_size(folder: Path) -> int:
    try:
        return (folder / WEIGHTS).stat().st_size
    except OSError as error:
        raise UserError(f"weights={folder}: its {WEIGHTS} cannot be read ({reason(error)}).") from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a preset. Raises UserError where it cannot be read."""
    try:
        if path.stat().st_size > keras_file_check.MAX_JSON_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
        return content
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"weights={path.parent}: its {path.name} cannot be read ({reason(error)})."
        ) from error


def reason(error: Exception) -> str:
    """The text of an error as part of a one-line message."""
    return printable_text(getattr(error, "strerror", None) or one_line(error)[:200])
