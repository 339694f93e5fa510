"""Builds the network that a value of `backbone` names, and describes the images that it takes."""

from __future__ import annotations

import dataclasses
import pkgutil
from typing import Any

import keras
from keras.src.models.functional import Functional

from simsiam_tf.config.backbones import PIXELS, PixelScale, parse_backbone
from simsiam_tf.nets.keras_networks import clone, rebuild
from simsiam_tf.runtime.errors import UserError

ops: Any = keras.ops  # pyright infers None from its functions


@dataclasses.dataclass(frozen=True)
class Description:
    """The images that a network takes, and the licence of its weights.

    scale: the range and normalisation of its pixels; None: any, since its weights are random.
    size: side in pixels of its images, or of those that its weights were trained on; None: any.
    fixed_size: whether it takes no other size.
    channels: number of channels of its images; None: any.
    licence: licence of its published weights; empty where it is not known.
    smallest: smallest side in pixels that it takes.
    keeps_size: whether a run of this package trained it, so that it reads images best at `size`.
    """

    scale: PixelScale | None = None
    size: int | None = None
    fixed_size: bool = False
    channels: int | None = None
    licence: str = ""
    smallest: int = 32
    keeps_size: bool = False

    @property
    def pixel_rule(self) -> dict[str, tuple[float, ...]]:
        """Fields of an `Augmentation`; empty without a scale."""
        return {"mean": self.scale.mean, "std": self.scale.std} if self.scale else {}


def describe_backbone(backbone: str, pixels: str = "auto", trust_code: bool = False) -> Description:
    """Describes the images that a backbone takes.

    backbone, trust_code: values of these options. pixels: a key of `PIXELS`; "auto": the network's own.

    Raises:
        UserError: there is no such network, or it is unknown how it takes pixels.
    """
    parsed = parse_backbone(backbone)
    if parsed.kind:
        options = {"name": parsed.name, "weights": parsed.weights, "pixels": pixels, "trust_code": trust_code}
        return pkgutil.resolve_name(parsed.row.describe)(options)
    rule = parsed.row.pixel_rule
    scale = PixelScale(rule["mean"], rule["std"]) if rule else None
    return Description(scale if pixels == "auto" else PIXELS[pixels])


def build_backbone(
    name: str, size: int, channels: int, stem: str = "imagenet", width: float = 1.0, pixels: str = "auto",
    trust_code: bool = False,
) -> keras.Model:  # fmt: skip
    """The network that `backbone` names: normalised images [B, H, W, channels] → features [B, F].

    size: side of the views in pixels. stem, width: options that ResNets read (`nets.resnet`). pixels,
    trust_code: as for `describe_backbone`.

    Raises:
        UserError: as `describe_backbone`; or the network cannot be built for such images.
    """
    parsed = parse_backbone(name)
    build = pkgutil.resolve_name(parsed.row.builder)
    options = {
        "name": parsed.name, "weights": parsed.weights, "stem": stem, "width": width, "pixels": pixels,
        "trust_code": trust_code,
    }  # fmt: skip
    return build(size, channels, options)


def to_features(
    network: keras.Model,
    size: int | None,
    channels: int,
    reverse: bool = False,
    has_class_token: bool = False,
) -> keras.Model:
    """The network, pooled: images [B, size, size, channels] → features [B, F].

    Pooling averages maps [B, h, w, F] or tokens [B, T, F]; a class token, the first one, is taken as the
    features instead. Of several outputs the last is taken.

    size: side of the images in pixels; None: any. reverse: whether the network takes blue, green and red.
    has_class_token: whether the first token is a class token.

    Raises:
        UserError: the output is none of these.
    """
    layered = _is_layered(network)  # then its layers become those of the backbone
    if layered and not reverse:
        images, outputs = network.inputs[0], network.outputs
    else:
        images = keras.Input((size, size, channels), name="images")
        x = ops.flip(images, axis=-1) if reverse else images
        inputs = network.inputs if isinstance(network, keras.Sequential) else network.input
        (name,) = inputs if isinstance(inputs, dict) else (None,)
        outputs = (network.call if layered else network)({name: x} if name else x)
    x = keras.tree.flatten(outputs)[-1]
    if len(x.shape) == 4:
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    elif len(x.shape) == 3 and has_class_token:
        x = x[:, 0]
    elif len(x.shape) == 3:
        x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    if len(x.shape) != 2 or x.shape[-1] is None:
        raise UserError(f"{network.name}: gives {tuple(x.shape)}, not features [B, F].")
    backbone = keras.Model(images, x, name="backbone")
    if layered and reverse:  # layers that were called twice are no layers of one network: they are made again
        return rebuild(backbone, lambda layer: [clone(layer, keras.models.clone_model)])
    return backbone


def _is_layered(network: keras.Model) -> bool:
    """Whether a network is a graph of layers that can be made again by their configurations."""
    known = ("keras.src.layers.", "keras.src.ops.", "simsiam_tf.nets.", "keras_hub.src.models.efficientnet.")
    return isinstance(network, Functional) and all(
        type(operation).__module__.startswith(known) for operation in network.operations
    )


def pooled(network: keras.Model) -> keras.Model:
    """The network with its maps or tokens averaged, as by `to_features`; itself if it gives features."""
    size, _, channels = network.input_shape[1:]
    return network if len(network.output_shape) == 2 else to_features(network, size, channels)
