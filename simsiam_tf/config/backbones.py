"""BACKBONES: the networks that the option `backbone` chooses from. Imports no TensorFlow."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A row of `BACKBONES`: how a network is built, and how its pixels are normalised.

    To add a backbone, write its builder and add a row; `--backbone` and its help follow.

    builder: "module:function"; the function maps (size, channels, options) to a functional Keras model
        from normalised images [B, H, W, channels] to features [B, F]. size: the side of the training views.
        options: "name" (the row's), "stem" and "width"; a builder may ignore some.
    pixel_rule: "mean" and "std" of pixels in [0, 1], a number for each channel; empty: those of the
        augmentation are used.
    """

    builder: str
    pixel_rule: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)


_RESNET = Backbone("simsiam_tf.nets.resnet:build_resnet")
BACKBONES = {"resnet10": _RESNET, "resnet18": _RESNET, "resnet34": _RESNET, "resnet50": _RESNET}
