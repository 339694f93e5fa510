"""Weights that a run begins with: those of a backbone's file, of the heads and the momentum beside it."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from simsiam_tf.methods.momentum_encoder import MomentumEncoder
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime.errors import UserError

_FLAGS = ("d", "projector_layers", "projector_hidden", "predictor_hidden", "bn", "output_affine")


def start_from(backbone: keras.Model, where: str) -> None:
    """Copies the weights of `where` into a backbone of the same architecture.

    Raises:
        UserError: naming the first parts that differ.
    """
    loaded = backbone_file.load(where)
    differ = _differences(backbone, loaded)
    if differ:
        raise UserError(
            f"weights={where}: another architecture; {differ}. "
            "Give `backbone`, `stem` and `width` as when it was trained."
        )
    _copy(loaded, backbone)


def start_model(model: keras.Model, where: str, heads: str = "auto") -> None:
    """Copies a backbone, and the heads beside it, into a method's model; `model.started` names the parts.

    Momentum encoders are made equal to what they follow.

    Args:
        model: has a `backbone`, a `projector`, and a `predictor`, which may be None.
        where: the folder of the backbone.
        heads: "true"; "false" for none; "auto" for those of a converted checkpoint, whose run goes on.
            The heads of our own runs belong to the run that made them, and another begins without.

    Raises:
        UserError: another architecture; or, with "true", heads that are not there.
    """
    start_from(model.backbone, where)
    pairs = _heads(model, where, heads)
    for head, loaded in pairs.values():
        _copy(loaded, head)
    for copy in model._flatten_layers():
        if isinstance(copy, MomentumEncoder):
            for network, original in zip(copy.networks, (model.backbone, model.projector), strict=True):
                network.set_weights(original.get_weights())
    model.started = ", ".join(["backbone", *pairs])


def _heads(model: keras.Model, where: str, heads: str) -> dict[str, tuple[keras.Model, keras.Model]]:
    """Name → (the model's head, the file's), of those to copy."""
    known = backbone_file.card(where)
    if heads == "false" or (heads == "auto" and "converted from" not in known):
        return {}
    mine = {name: getattr(model, name, None) for name in backbone_file.HEADS}
    pairs = {
        name: (head, backbone_file.load_part(where, name)) for name, head in mine.items() if head is not None
    }
    missing = [name for name, (_, loaded) in pairs.items() if loaded is None]
    if missing and heads == "true":
        raise UserError(f"weights_heads=true: {where} has no {' and no '.join(missing)}. Leave it out.")
    pairs = {name: pair for name, pair in pairs.items() if name not in missing}
    for name, pair in pairs.items():
        differ = _differences(*pair)
        if differ:
            configuration = known.get("heads") or known.get("configuration")
            flags = configuration if isinstance(configuration, dict) else {}
            flags = backbone_file.options_text(
                {k: flags[k] for k in _FLAGS if isinstance(flags.get(k), int | str)}
            )
            raise UserError(
                f"weights={where}: its {name} is another one; {differ}. Pass {flags or 'its own options'}, "
                "or weights_heads=false to begin with heads at random."
            )
    return pairs


def start_momentum(model: keras.Model, where: str, parts: Sequence[str]) -> bool:
    """Copies the momentum that a converted checkpoint has into the model's optimizer; whether it has any.

    parts: of the model, whose weights are the checkpoint's.
    """
    optimizer, any_found = model.optimizer, False
    for name in parts:
        loaded = backbone_file.load_part(where, f"momentum_{name}")
        if loaded is not None and not _differences(getattr(model, name), loaded):
            any_found, values = True, {_name(v): v for v in loaded.trainable_variables}
            for variable in getattr(model, name).trainable_variables:
                index = optimizer._get_variable_index(variable)
                optimizer.momentums[index].assign(values[_name(variable)])
    return any_found


def _copy(source: keras.Model, target: keras.Model) -> None:
    values = {_name(v): v for v in source.weights}
    for variable in target.weights:
        variable.assign(values[_name(variable)])


def _differences(mine: keras.Model, other: keras.Model) -> str:
    """How the variables of two networks differ, in words; empty where they do not."""
    own, loaded = ({_name(v): v for v in model.weights} for model in (mine, other))
    differ = [n for n in {**own, **loaded} if _shape(own, n) != _shape(loaded, n)]
    if not differ:
        return ""
    n = differ[0]
    return (
        f"{len(differ)} of {len(own)} variables differ, such as {n if n.isprintable() else ascii(n)}: "
        f"{_shape(own, n)} here, {_shape(loaded, n)} there"
    )


def _name(variable) -> str:
    return "/".join(variable.path.split("/")[-2:])


def _shape(variables: dict, name: str) -> tuple | None:
    return tuple(variables[name].shape) if name in variables else None
