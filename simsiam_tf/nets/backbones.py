"""Builds a backbone by its name."""

from __future__ import annotations

import pkgutil

import keras

from simsiam_tf.config.backbones import BACKBONES


def build_backbone(name: str, size: int, channels: int, stem: str, width: float) -> keras.Model:
    """The network of a row of `BACKBONES`: normalised images [B, H, W, channels] → features [B, F].

    size: side of the views in pixels. stem, width: options that ResNets read (`nets.resnet`).
    """
    if name not in BACKBONES:
        raise ValueError(f"No backbone is called {name!r}. Choose from {', '.join(BACKBONES)}.")
    build = pkgutil.resolve_name(BACKBONES[name].builder)
    return build(size, channels, {"name": name, "stem": stem, "width": width})
