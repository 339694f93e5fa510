"""The networks that `backbone` names, without importing TensorFlow."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from simsiam_tf.config.places import absolute_path, is_url
from simsiam_tf.runtime.errors import UserError, nearest

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BYTE = 1 / 255


@dataclasses.dataclass(frozen=True)
class PixelScale:
    """How a network takes pixels: (pixel / 255 − mean) / std, one number for each channel or for all.

    reverse: whether its channels are blue, green, red.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    reverse: bool = False


PIXELS = {  # `pixels` → what the first layer takes, from red, green and blue in [0, 255]
    "torch": PixelScale(IMAGENET_MEAN, IMAGENET_STD),  # mean 0 and variance 1 on ImageNet
    "tf": PixelScale((0.5,), (0.5,)),  # [−1, 1]
    "caffe": PixelScale(
        (123.68 / 255, 116.779 / 255, 103.939 / 255), (_BYTE,) * 3, True
    ),  # mean 0, in levels
    "unit": PixelScale((0.0,), (1.0,)),  # [0, 1]
    "byte": PixelScale((0.0,), (_BYTE,)),  # [0, 255]: the network itself normalises
}
SHA256 = "#sha256="  # before the digest in an address of weights, such as file:///folder/NAME.json#sha256=…


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A row of `BACKBONES` or `BACKBONE_KINDS`: how networks are built, and how their images are normalised.

    To add a backbone, write its builder and add a row; `--backbone` and its help follow.

    builder: "module:function"; the function maps (size, channels, options) to a functional Keras model
        from images [B, H, W, channels] to features [B, F]. size: the side of the training views.
        options: "name" (the row's, or what follows its colon), "weights" (what follows "+", or None), and the
        options "pixels", "trust_code", "stem" and "width"; a builder may ignore some.
    pixel_rule: "mean" and "std", one number for each channel of an image in [0, 1], to normalise
        its pixels; empty: the augmentation's are used.
    form: for rows of `BACKBONE_KINDS`: how a value of `backbone` is written.
    describe: for rows of `BACKBONE_KINDS`: "module:function"; maps the same options to a
        `nets.backbones.Description`.
    """

    builder: str
    pixel_rule: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    form: str = ""
    describe: str = ""


_RESNET = Backbone("simsiam_tf.nets.resnet:build_resnet")
BACKBONES: dict[str, Backbone] = dict.fromkeys(
    ("resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "wide_resnet50", "wide_resnet101"), _RESNET
)


def _kind(form: str, module: str) -> Backbone:
    return Backbone(f"simsiam_tf.{module}:build", form=form, describe=f"simsiam_tf.{module}:describe")


BACKBONE_KINDS = {
    "keras": _kind("keras:NAME", "nets.keras_applications"),
    "hub": _kind("hub:PRESET", "nets.keras_hub_backbones"),
    "file": _kind("file:PATH.keras", "pretrained.network_file"),
    "py": _kind("py:MODULE:FUNCTION", "nets.python_network"),
}


@dataclasses.dataclass(frozen=True)
class BackboneName:
    """A value of `backbone` in its parts: KIND:NAME+WEIGHTS, or a key of `BACKBONES` as the name.

    weights: "imagenet" or another value that keras.applications takes, "weights" for other kinds; None:
        random weights.
    """

    text: str
    kind: str
    name: str
    weights: str | None

    @property
    def row(self) -> Backbone:
        """The row that the backbone is built by."""
        return BACKBONE_KINDS[self.kind] if self.kind else BACKBONES[self.name]


def is_network(text: str) -> bool:
    """Whether a value of `backbone` or `weights` names a network of `BACKBONE_KINDS`."""
    kind, colon, _ = text.partition(":")
    return bool(colon) and kind in BACKBONE_KINDS and SHA256 not in text


def absolute_network(text: str) -> str:
    """The same value of `backbone` or `weights`; paths become independent of the working folder."""
    parsed = parse_backbone(text)
    if parsed.kind not in ("file", "hub") or not os.path.exists(os.path.expanduser(parsed.name)):
        return text
    return f"{parsed.kind}:{absolute_path(parsed.name)}{text[len(parsed.kind) + 1 + len(parsed.name) :]}"


def parse_backbone(text: str, option: str = "backbone") -> BackboneName:
    """Parses a value of `backbone`, or of the option `option`. Raises UserError where it names no network."""
    if text in BACKBONES:
        return BackboneName(text, "", text, None)
    kind, _, rest = text.partition(":")
    if not is_network(text):
        forms = [row.form for row in BACKBONE_KINDS.values()]
        raise UserError(f"{option}={text}: no such value.{nearest(text, [*BACKBONES, *forms])}")
    name, plus, weights = rest.rpartition("+")
    if not plus or not (weights == "weights" or (kind == "keras" and weights)):
        name, weights = rest, ""
    if kind == "keras" and weights == "weights":
        weights = "imagenet"
    if not name:
        raise UserError(f"{option}={text}: names no network. Pass {option}={BACKBONE_KINDS[kind].form}.")
    return BackboneName(text, kind, name, weights or None)


def is_published(backbone: str) -> bool:
    """Whether a value of the option `backbone` names a network with its weights, as in "NAME+imagenet"."""
    return is_network(backbone) and bool(parse_backbone(backbone).weights)


def check_stored_networks(config: Any) -> None:
    """Raises UserError where an option of a command names a file or folder of weights that is not there.

    It is a check of names alone, before TensorFlow is loaded; whoever opens the file checks it.
    """
    for option in ("weights", "backbone", "teacher"):
        value = getattr(config, option, None)
        if not value or (option == "weights" and getattr(config, "counts_missing_weights", False)):
            continue
        network = parse_backbone(value, option) if is_network(value) or option == "backbone" else None
        path = value if network is None else network.name if network.kind == "file" else ""
        is_name = is_url(path) or SHA256 in path or getattr(config, "from_keras_hub", False)
        if not path or is_name or not _is_missing(path):
            continue
        forms = "" if "." in path else " Pass a finished work folder, a .keras file, hf://USER/NAME or a URL."
        raise UserError(f"{option}={value[:200]}: no such file: {absolute_path(path)[:200]}.{forms}")


def check_not_overwritten(config: Any) -> None:
    """Raises UserError where the export of a run would overwrite a network that the run begins with."""
    folder = absolute_path(config.workdir) if config.workdir else None
    for option in ("weights", "backbone", "teacher"):
        place = getattr(config, option) or ""
        network = parse_backbone(place) if option == "backbone" else None
        path = place if network is None else network.name
        if network is not None and network.kind != "file":
            continue
        if folder and place and absolute_path(path) in (folder, f"{folder}/export/backbone.keras"):
            raise UserError(
                f"workdir={config.workdir}: is the folder of {option}={place}, whose network the run would "
                "overwrite. Choose another `workdir`."
            )


def _is_missing(path: str) -> bool:
    """Whether there is no such file. Of other errors, such as a name too long, whoever opens it tells."""
    try:
        os.stat(os.path.expanduser(path))
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        pass
    return False
