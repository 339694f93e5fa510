"""From a configuration and a backbone to a method's model: which flag is which of its arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from simsiam_tf.config import PretrainConfig
from simsiam_tf.methods import BYOL, Alternation, MoCo, MovingAverage, SiameseModel, SimCLR, SimSiam, SwAV
from simsiam_tf.runtime.errors import UserError


class Length(NamedTuple):
    """Of a run: its steps, and the images of an epoch; what some methods depend on."""

    steps: int
    images: int


LONG = Length(10_000, 10_000)  # for a model that is only looked at


def model(config: PretrainConfig, backbone: keras.Model, length: Length) -> SiameseModel:
    """The model of `method` around a backbone."""
    names = ("d", "projector_hidden", "projector_layers")
    shared = {name: getattr(config, name) for name in names}
    return MODELS[config.method](config, backbone, shared, length)


def _simsiam(config: PretrainConfig, backbone: keras.Model, shared: dict, length: Length) -> SimSiam:
    kind, more = SimSiam, {}
    if config.alternate:
        epoch = max(1, round(length.steps / config.epochs))
        kind, more = Alternation, {"k": epoch if config.alternate == "epoch" else int(config.alternate)}
    elif config.average is not None:
        if isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy):
            raise UserError("`average`: its table of images cannot be kept on TPUs. Leave `average` out.")
        kind, more = MovingAverage, {"m": config.average, "images": length.images}
    return kind(
        backbone,
        predictor_hidden=config.predictor_hidden,
        stop_gradient=config.by_method("stop_gradient"),
        predictor=config.h,
        bn=config.bn,
        output_affine=config.output_affine,
        similarity=config.similarity,
        symmetry=config.symmetry,
        **more,
        **shared,
    )


def _simclr(config: PretrainConfig, backbone: keras.Model, shared: dict, _: Length) -> SimCLR:
    return SimCLR(backbone, temperature=config.by_method("temperature"), **_with_h(config), **shared)


def _moco(config: PretrainConfig, backbone: keras.Model, shared: dict, _: Length) -> MoCo:
    return MoCo(
        backbone,
        temperature=config.by_method("temperature"),
        momentum=config.by_method("target_momentum"),
        queue=config.queue,
        groups=_key_groups(config),
        seed=config.seed,
        **shared,
    )


def _key_groups(config: PretrainConfig) -> int | None:
    """`key_groups` of one replica; None for BN over all of them. A replica is never less than a group."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if config.key_groups == 1:
        return None
    if config.key_groups > replicas and config.key_groups % replicas:
        raise UserError(
            f"key_groups={config.key_groups}: cannot be dealt out to {replicas} replicas. "
            f"Try key_groups={config.key_groups // replicas * replicas}."
        )
    return max(1, config.key_groups // replicas)


def _byol(config: PretrainConfig, backbone: keras.Model, shared: dict, length: Length) -> BYOL:
    momentum = config.by_method("target_momentum")
    hidden = config.predictor_hidden
    return BYOL(backbone, predictor_hidden=hidden, momentum=momentum, steps=length.steps, **shared)


def _swav(config: PretrainConfig, backbone: keras.Model, shared: dict, _: Length) -> SwAV:
    return SwAV(
        backbone,
        prototypes=config.prototypes,
        temperature=config.by_method("temperature"),
        epsilon=config.sinkhorn_epsilon,
        prototype_norm=config.prototype_norm,
        **_with_h(config),
        **shared,
    )


def _with_h(config: PretrainConfig) -> dict[str, Any]:
    """The variants of Sec. 6.2."""
    return {
        "predictor": config.h == "trained",
        "predictor_hidden": config.predictor_hidden,
        "stop_gradient": config.by_method("stop_gradient"),
    }


MODELS: dict[str, Callable[..., SiameseModel]] = {
    "simsiam": _simsiam, "simclr": _simclr, "moco": _moco, "byol": _byol, "swav": _swav,
}  # fmt: skip
