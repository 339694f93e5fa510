"""Networks of .keras files that other programs wrote: file:PATH.keras, file:PATH.keras+weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from simsiam_tf.config.backbones import PIXELS, PixelScale
from simsiam_tf.nets import keras_applications
from simsiam_tf.nets.backbones import Description, to_features
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.pretrained.backbone_file import card_entries
from simsiam_tf.runtime.errors import UserError

PIXELS_IN_WORDS = (
    "torch (mean 0, variance 1 on ImageNet), tf (−1 to 1), caffe (blue, green, red less their means), unit "
    "(0 to 1) or byte (0 to 255)"
)


class UnknownPixels(UserError):
    """Neither an option nor a card nor the network itself tells how a file's network takes pixels."""


def describe(options: Mapping[str, Any]) -> Description:
    """Describes the images that a file's network takes.

    Raises:
        UserError: as `load_backbone` and `pixel_scale`.
    """
    network, card = _load(options), backbone_file.read_card(options["name"])
    _, fixed, _, channels = network.input_shape
    licence, scale = card.get("license"), pixel_scale(network, options["name"], options["pixels"], False)
    return Description(
        scale, fixed or backbone_file.card_size(card), bool(fixed), channels,
        licence=licence if isinstance(licence, str) else "",
        keeps_size=bool(card_entries(card, "configuration").get("epochs")),
    )  # fmt: skip


def build(size: int, channels: int, options: Mapping[str, Any]) -> keras.Model:
    """The network of a file, pooled; with random weights unless options["weights"] asks for the file's.

    Raises:
        UserError: as `describe`, or the network takes no such images.
    """
    network = _load(options)
    height, *_, expected = network.input_shape[1:]
    if (height, expected) not in ((None, channels), (size, channels)):
        raise UserError(
            f"backbone=file:{options['name']}: takes images of {height or 'any'} pixels and {expected} "
            f"channels, not of {size} and {channels}. Pass `image_size` and `channels` that fit."
        )
    scale = pixel_scale(network, options["name"], options["pixels"], False)
    return as_backbone(network if options["weights"] else keras.models.clone_model(network), scale)


def pixel_scale(
    network: keras.Model, weights: str, pixels: str = "auto", by_augmentation: bool = True
) -> PixelScale:
    """The range and normalisation of a file's network: by `pixels`, its card, or else keras.applications.

    weights: path of the file. pixels: a key of `PIXELS`, or "auto". by_augmentation: whether the caller's
    option `augmentation` would say it, too.

    Raises:
        UnknownPixels: there is no card, and the network is none of keras.applications.
    """
    if pixels != "auto":
        return PIXELS[pixels]
    views = card_entries(backbone_file.read_card(weights), "views")
    if {"mean", "std"} <= views.keys():
        return PixelScale(tuple(views["mean"]), tuple(views["std"]))
    name = keras_applications.recognise(network)
    if name is None:
        named = "augmentation=imagenet, cifar, grayscale or multichannel for a backbone of this package, or "
        raise UnknownPixels(
            f"{weights}: no card beside it says how images are preprocessed for it. Pass "
            f"{named * by_augmentation}pixels={PIXELS_IN_WORDS}{' for another' * by_augmentation}."
        )
    scale = keras_applications.describe({"name": name, "weights": None, "pixels": "auto"}).scale
    assert scale is not None
    return scale


def as_backbone(network: keras.Model, scale: PixelScale) -> keras.Model:
    """The network, pooled: images → features [B, F]. A classifier of keras.applications is cut off."""
    network = keras_applications.without_classifier(network)
    if len(network.output_shape) == 2 and not scale.reverse:
        return network
    return to_features(network, network.input_shape[1], network.input_shape[-1], scale.reverse)


def _load(options: Mapping[str, Any]) -> keras.Model:
    return backbone_file.load_backbone(options["name"], options["trust_code"])
