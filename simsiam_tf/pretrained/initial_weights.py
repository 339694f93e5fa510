"""Starts a run from a stored backbone, and from the heads and the optimizer's momentum beside it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from simsiam_tf.methods.momentum_encoder import MomentumEncoder
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

_HEAD_OPTIONS = ("d", "projector_layers", "projector_hidden", "predictor_hidden", "bn", "output_affine")


def copy_networks(model: Any, weights: str, heads: str = "auto") -> None:
    """Copies a backbone, and the heads beside it, into a method's model; sets `model.started` to their names.

    Momentum encoders get the same weights as the networks that they follow.

    Args:
        model: has a `backbone`, a `projector`, and a `predictor`, which may be None.
        weights: a work folder or a .keras file.
        heads: whether heads are copied. "true", "false", or "auto": only those of a converted checkpoint, to
            continue its training. After a run of this package, "auto" leaves the heads at random weights.

    Raises:
        UserError: as `load_backbone`; a network of another architecture (the message names the first
            variable that differs); or, with "true", a head that the model has and the folder lacks.
    """
    stored = {"backbone": backbone_file.load_backbone(weights), **_stored_heads(model, weights, heads)}
    for name, network in stored.items():
        difference = _first_difference(getattr(model, name), network)
        if difference:
            raise UserError(
                f"weights={weights}: its {name} has another architecture; {difference}. Pass "
                f"{_fitting_options(name, weights)}."
            )
        values = _by_name(network.weights)
        for variable_name, variable in _by_name(getattr(model, name).weights).items():
            variable.assign(values[variable_name])
    for layer in model._flatten_layers():
        if isinstance(layer, MomentumEncoder):
            for network, original in ((layer.backbone, model.backbone), (layer.projector, model.projector)):
                network.set_weights(original.get_weights())
    model.started = ", ".join(stored)


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
    """The options with which a stored network fits the model, for a message."""
    if name == "backbone":
        return "`backbone`, `stem` and `width` as when it was trained"
    card = backbone_file.read_card(weights)
    values = backbone_file.card_entries(card, "heads") or backbone_file.card_entries(card, "configuration")
    known = {o: values[o] for o in _HEAD_OPTIONS if isinstance(values.get(o), int | str)}
    options = [printable_text(f"{option}={value}".lower()) for option, value in known.items()]
    fitting = " ".join(options) or "its own options"
    return f"{fitting}, or weights_heads=false to begin with random heads"


def copy_momentum(model: Any, weights: str, names: Iterable[str]) -> bool:
    """Copies the momentum of a converted checkpoint into the model's optimizer; returns whether any fitted.

    names: the model's networks whose weights come from the checkpoint.
    """
    has_momentum = False
    for name in names:
        network, stored = getattr(model, name), backbone_file.load_beside(weights, f"momentum_{name}")
        if stored is not None and not _first_difference(network, stored):
            has_momentum, values = True, _by_name(stored.trainable_variables)
            for variable_name, variable in _by_name(network.trainable_variables).items():
                index = model.optimizer._get_variable_index(variable)
                model.optimizer.momentums[index].assign(values[variable_name])
    return has_momentum


def _first_difference(network: keras.Model, stored: keras.Model) -> str:
    """How the variables of two networks differ, in words; empty where they do not."""
    here, there = (
        {name: tuple(v.shape) for name, v in _by_name(net.weights).items()} for net in (network, stored)
    )
    names = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    if not names:
        return ""
    name = names[0]
    return (
        f"{len(names)} of {len(here)} variables differ, such as {printable_text(name)}: "
        f"{here.get(name)} here, {there.get(name)} there"
    )


def _by_name(variables: Iterable[Any]) -> dict[str, Any]:
    """ "layer/kind" → variable."""
    return {"/".join(variable.path.split("/")[-2:]): variable for variable in variables}
