"""Starts a run from a stored backbone, and from the heads and the optimizer's momentum beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import keras

from simsiam_tf.config import PretrainConfig
from simsiam_tf.config.backbones import BACKBONES, PixelScale, is_network, parse_backbone
from simsiam_tf.methods.momentum_encoder import MomentumEncoder
from simsiam_tf.nets.backbones import Description
from simsiam_tf.nets.resnet import STEMS
from simsiam_tf.nets.variable_paths import copy_variables, matched_variables
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

TRAIN = "python -m simsiam_tf.pretrain --recipe=auto --data=…"  # for reports, which add the weights
_HEAD_OPTIONS = ("d", "projector_layers", "projector_hidden", "predictor_hidden", "bn", "output_affine")


def copy_networks(model: Any, weights: str, heads: str = "auto") -> None:
    """Copies a backbone, and the heads beside it, into a method's model.

    Momentum encoders get the same weights as the networks that they follow. `model.started` names the
    networks that were copied, `model.left_out` the heads beside the backbone that were not.

    Args:
        model: has a `backbone`, a `projector`, and a `predictor`, which may be None.
        weights: a work folder, a .keras file or an address on the Hub.
        heads: whether heads are copied. "true", "false", or "auto": only those of a converted checkpoint, to
            continue its training. After a run of this package, "auto" leaves the heads at random weights.

    Raises:
        UserError: as `load_backbone`; a network of another architecture (the message names the first
            variable that differs); or, with "true", a head that the model has and the folder lacks.
    """
    stored = {"backbone": backbone_file.load_backbone(weights), **_stored_heads(model, weights, heads)}
    for name, network in stored.items():
        difference = _difference(getattr(model, name), network)
        if difference:
            raise UserError(
                f"weights={weights}: its {name} has another architecture; {difference}. Pass "
                f"{_fitting_options(name, weights)}."
            )
        copy_variables(network, getattr(model, name))
    for layer in model._flatten_layers():
        if isinstance(layer, MomentumEncoder):
            for network, original in ((layer.backbone, model.backbone), (layer.projector, model.projector)):
                copy_variables(original, network, "momentum_")
    beside = backbone_file.card_entries(backbone_file.read_card(weights), "networks beside")
    model.started = ", ".join(stored)
    model.left_out = ", ".join(name for name in backbone_file.HEADS if name in beside and name not in stored)


def _stored_heads(model: Any, weights: str, heads: str) -> dict[str, keras.Model]:
    """The heads to copy: those that both the folder and the model have; empty where `heads` forbids it."""
    if heads == "false" or (heads == "auto" and "converted from" not in backbone_file.read_card(weights)):
        return {}
    names = [name for name in backbone_file.HEADS if getattr(model, name, None) is not None]
    stored = {name: backbone_file.load_beside(weights, name) for name in names}
    missing = [name for name, head in stored.items() if head is None]
    if missing and heads == "true":
        raise UserError(f"weights_heads=true: {weights} has no {' and no '.join(missing)}. Leave it out.")
    return {name: head for name, head in stored.items() if head is not None}


def _fitting_options(name: str, weights: str) -> str:
    """The options with which the model would fit a stored network, for a message."""
    card = backbone_file.read_card(weights)
    trained = str(backbone_file.card_entries(card, "configuration").get("backbone", ""))
    unknown = card and not {"architecture", "configuration"} & card.keys()
    if name == "backbone" and (unknown or is_network(trained)):
        return f"backbone=file:{weights}+weights instead of `weights`"  # not a ResNet of this package
    if name == "backbone":
        options = network_options(weights)
        text = " ".join(f"{option}={value}" for option, value in options.items())
        return text or "`backbone`, `stem` and `width` as when it was trained"
    values = backbone_file.card_entries(card, "heads") or backbone_file.card_entries(card, "configuration")
    known = {o: values[o] for o in _HEAD_OPTIONS if isinstance(values.get(o), int | str)}
    options = [printable_text(f"{option}={value}".lower()) for option, value in known.items()]
    fitting = " ".join(options) or "its own options"
    return f"{fitting}, or weights_heads=false to begin with random heads"


def network_options(weights: str) -> dict[str, Any]:
    """The options `backbone`, `stem` and `width` that build a stored network, from its card.

    Empty where there is no card, or the network is none of `BACKBONES`.
    """
    card = backbone_file.read_card(weights)
    run, views = (backbone_file.card_entries(card, key) for key in ("configuration", "views"))
    network = {"name": run.get("backbone"), "stem": run.get("stem"), "width": run.get("width")}
    if network["stem"] == "auto" and isinstance(views.get("size"), int):
        network["stem"] = PretrainConfig().stem_for(views["size"])
    network |= backbone_file.card_entries(card, "architecture")
    name, stem, width = (network[key] for key in ("name", "stem", "width"))
    if not (isinstance(name, str) and name in BACKBONES and isinstance(stem, str) and stem in STEMS):
        return {}
    return {"backbone": name, "stem": stem, "width": width} if isinstance(width, float | int) else {}


def describe_stored(weights: str, network: Description) -> Description:
    """A network's description with the size and the pixels that the card of its stored weights has."""
    card = backbone_file.read_card(weights)
    views, licence = backbone_file.card_entries(card, "views"), card.get("license")
    scale = PixelScale(tuple(views["mean"]), tuple(views["std"])) if {"mean", "std"} <= views.keys() else None
    return dataclasses.replace(
        network, scale=scale or network.scale, size=network.size or backbone_file.card_size(card),
        licence=licence if isinstance(licence, str) else "",
    )  # fmt: skip


def stored_network(config: PretrainConfig) -> str | None:
    """The place of the stored network that a run begins with, in `weights` or `backbone`; None for others."""
    backbone = parse_backbone(config.backbone)
    return config.weights or (backbone.name if backbone.kind == "file" and backbone.weights else None)


def copy_momentum(model: Any, weights: str, names: Iterable[str]) -> bool:
    """Copies the momentum of a converted checkpoint into the model's optimizer; returns whether it had any.

    Momentum of networks that differ from the model's is left out.

    names: the model's networks whose weights come from the checkpoint.
    """
    has_momentum = False
    for name in names:
        network, stored = getattr(model, name), backbone_file.load_beside(weights, f"momentum_{name}")
        if stored is not None and not _difference(network, stored):
            has_momentum, trainable = True, {id(variable) for variable in network.trainable_variables}
            variables, values = matched_variables(network, stored)
            for path, variable in variables.items():
                if id(variable) in trainable:
                    index = model.optimizer._get_variable_index(variable)
                    model.optimizer.momentums[index].assign(values[path])
    return has_momentum


def _difference(network: keras.Model, stored: keras.Model) -> str:
    """How the variables of two networks differ, in words; empty where they do not."""
    here, there = (
        {path: tuple(variable.shape) for path, variable in variables.items()}
        for variables in matched_variables(network, stored)
    )
    shared = [path for path in here if path in there]
    differences = {
        "only here": [path for path in here if path not in there],
        "only there": [path for path in there if path not in here],
        "of another shape": [f"{p}: {here[p]} here, {there[p]} there" for p in shared if here[p] != there[p]],
    }
    if not any(differences.values()):
        return ""
    listed = (f"{len(paths)} {how} ({_first_two(paths)})" for how, paths in differences.items() if paths)
    return f"{sum(map(len, differences.values()))} variables differ: {', '.join(listed)}"


def _first_two(texts: list[str]) -> str:
    return printable_text("; ".join(texts[:2])) + ("; …" if len(texts) > 2 else "")
