"""Starts a run from stored weights: of a backbone, and of the heads and the momentum beside it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from simsiam_tf.methods.momentum_encoder import MomentumEncoder
from simsiam_tf.nets.variable_paths import copy_variables, matched_variables
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

_HEAD_OPTIONS = ("d", "projector_layers", "projector_hidden", "predictor_hidden", "bn", "output_affine")


def copy_networks(model: Any, weights: str, heads: str = "auto") -> None:
    """Copies a backbone, and the heads beside it, into a method's model.

    Momentum encoders are set to the networks that they follow. `model.started` names the networks that were
    copied, `model.left_out` the heads beside the backbone that were not.

    Args:
        model: has a `backbone`, a `projector`, and a `predictor`, which may be None.
        weights: the folder of the backbone.
        heads: "true"; "false" for none; "auto" for those of a converted checkpoint, to continue its
            run. Heads that this package trained are left out: a new run begins with its own.

    Raises:
        UserError: another architecture, whose first different variables the message names; or, with
            "true", heads that the folder does not have.
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
    """The folder's heads that the model has, too, where they are to be copied."""
    if heads == "false" or (heads == "auto" and "converted from" not in backbone_file.read_card(weights)):
        return {}
    names = [name for name in backbone_file.HEADS if getattr(model, name, None) is not None]
    stored = {name: backbone_file.load_beside(weights, name) for name in names}
    missing = [name for name, head in stored.items() if head is None]
    if missing and heads == "true":
        raise UserError(f"weights_heads=true: {weights} has no {' and no '.join(missing)}. Leave it out.")
    return {name: head for name, head in stored.items() if head is not None}


def _fitting_options(name: str, weights: str) -> str:
    """What to pass for a model that a stored network fits."""
    if name == "backbone":
        return "`backbone`, `stem` and `width` as when it was trained"
    card = backbone_file.read_card(weights)
    values = backbone_file.card_entries(card, "heads") or backbone_file.card_entries(card, "configuration")
    known = {o: values[o] for o in _HEAD_OPTIONS if isinstance(values.get(o), int | str)}
    options = [printable_text(f"{option}={value}".lower()) for option, value in known.items()]
    fitting = " ".join(options) or "its own options"
    return f"{fitting}, or weights_heads=false to begin with random heads"


def copy_momentum(model: Any, weights: str, names: Iterable[str]) -> bool:
    """Copies the momentum of a converted checkpoint into the model's optimizer; returns whether it has any.

    names: names of the model's networks whose weights come from the checkpoint.
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
        {path: tuple(v.shape) for path, v in of.items()} for of in matched_variables(network, stored)
    )
    shared = [path for path in here if path in there]
    differences = {
        "only here": [path for path in here if path not in there],
        "only there": [path for path in there if path not in here],
        "of another shape": [f"{p}: {here[p]} here, {there[p]} there" for p in shared if here[p] != there[p]],
    }
    if not any(differences.values()):
        return ""
    listed = (f"{len(paths)} {how} ({_first(paths)})" for how, paths in differences.items() if paths)
    return f"{sum(map(len, differences.values()))} variables differ: {', '.join(listed)}"


def _first(texts: list[str]) -> str:
    return printable_text("; ".join(texts[:2])) + ("; …" if len(texts) > 2 else "")
