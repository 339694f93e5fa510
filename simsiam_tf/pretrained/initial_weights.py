"""Starts a run from stored weights: of a backbone, and of the heads and the momentum beside it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from simsiam_tf.methods.momentum_encoder import MomentumEncoder
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime.errors import UserError

_HEAD_OPTIONS = ("d", "projector_layers", "projector_hidden", "predictor_hidden", "bn", "output_affine")


def copy_backbone(backbone: keras.Model, where: str) -> None:
    """Copies the weights of a folder's backbone into one of the same architecture.

    Raises:
        UserError: another architecture; the message names the first variable that differs.
    """
    loaded = backbone_file.load_backbone(where)
    difference = _first_difference(backbone, loaded)
    if difference:
        raise UserError(
            f"weights={where}: another architecture; {difference}. "
            "Give `backbone`, `stem` and `width` as when it was trained."
        )
    _copy(loaded, backbone)


def copy_networks(model: Any, where: str, heads: str = "auto") -> None:
    """Copies a backbone, and the heads beside it, into a method's model; `model.started` names them.

    Momentum encoders are set to the networks that they follow.

    Args:
        model: has a `backbone`, a `projector`, and a `predictor`, which may be None.
        where: the folder of the backbone.
        heads: "true"; "false" for none; "auto" for those of a converted checkpoint, to continue its
            run. Heads that this package trained are left out: a new run begins with its own.

    Raises:
        UserError: another architecture; or, with "true", heads that the folder does not have.
    """
    copy_backbone(model.backbone, where)
    pairs = _matching_heads(model, where, heads)
    for head, loaded in pairs.values():
        _copy(loaded, head)
    for layer in model._flatten_layers():
        if isinstance(layer, MomentumEncoder):
            for network, original in ((layer.backbone, model.backbone), (layer.projector, model.projector)):
                network.set_weights(original.get_weights())
    model.started = ", ".join(["backbone", *pairs])


def _matching_heads(model: Any, where: str, heads: str) -> dict[str, tuple[keras.Model, keras.Model]]:
    """Name → (the model's head, the folder's), for the heads to copy."""
    card = backbone_file.read_card(where)
    if heads == "false" or (heads == "auto" and "converted from" not in card):
        return {}
    pairs, missing = {}, []
    for name in backbone_file.HEADS:
        head = getattr(model, name, None)
        if head is None:
            continue
        loaded = backbone_file.load_beside(where, name)
        if loaded is None:
            missing.append(name)
        else:
            pairs[name] = head, loaded
    if missing and heads == "true":
        raise UserError(f"weights_heads=true: {where} has no {' and no '.join(missing)}. Leave it out.")
    for name, pair in pairs.items():
        difference = _first_difference(*pair)
        if difference:
            options = card.get("heads") or card.get("configuration")
            options = options if isinstance(options, dict) else {}
            options = {k: options[k] for k in _HEAD_OPTIONS if isinstance(options.get(k), int | str)}
            raise UserError(
                f"weights={where}: its {name} has another shape; {difference}. Pass "
                f"{backbone_file.options_text(options) or 'its own options'}, "
                "or weights_heads=false to begin with random heads."
            )
    return pairs


def copy_momentum(model: Any, where: str, names: Iterable[str]) -> bool:
    """Copies the momentum of a converted checkpoint into the model's optimizer; returns whether it has any.

    names: names of the model's networks whose weights come from the checkpoint.
    """
    has_momentum = False
    for name in names:
        network, loaded = getattr(model, name), backbone_file.load_beside(where, f"momentum_{name}")
        if loaded is not None and not _first_difference(network, loaded):
            has_momentum, values = True, _by_name(loaded.trainable_variables)
            for variable_name, variable in _by_name(network.trainable_variables).items():
                index = model.optimizer._get_variable_index(variable)
                model.optimizer.momentums[index].assign(values[variable_name])
    return has_momentum


def _copy(source: keras.Model, target: keras.Model) -> None:
    values = _by_name(source.weights)
    for name, variable in _by_name(target.weights).items():
        variable.assign(values[name])


def _first_difference(network: keras.Model, other: keras.Model) -> str:
    """How the variables of two networks differ, in words; empty where they do not."""
    here, there = (
        {name: tuple(v.shape) for name, v in _by_name(net.weights).items()} for net in (network, other)
    )
    names = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    if not names:
        return ""
    name = names[0]
    return (
        f"{len(names)} of {len(here)} variables differ, such as "
        f"{name if name.isprintable() else ascii(name)}: {here.get(name)} here, {there.get(name)} there"
    )


def _by_name(variables: Iterable[Any]) -> dict[str, Any]:
    """ "layer/kind" → variable."""
    return {"/".join(variable.path.split("/")[-2:]): variable for variable in variables}
