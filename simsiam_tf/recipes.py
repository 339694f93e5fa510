"""From a configuration and a backbone to a method's model: which flag is which of its arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from simsiam_tf.config import PretrainConfig
from simsiam_tf.methods import BYOL, Alternation, MoCo, SiameseModel, SimCLR, SimSiam, SwAV


def model(config: PretrainConfig, backbone: keras.Model, total_steps: int | None) -> SiameseModel:
    """The model of --method around a backbone. total_steps: of the run."""
    names = ("d", "projector_hidden", "projector_layers")
    shared = {name: getattr(config, name) for name in names}
    return MODELS[config.method](config, backbone, shared, total_steps)


def _simsiam(config: PretrainConfig, backbone: keras.Model, shared: dict, total_steps: int | None) -> SimSiam:
    kind, more = SimSiam, {}
    if config.alternate:
        epoch = round((total_steps or 1) / config.epochs)
        kind, more = Alternation, {"k": epoch if config.alternate == "epoch" else int(config.alternate)}
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


def _simclr(config: PretrainConfig, backbone: keras.Model, shared: dict, _: int | None) -> SimCLR:
    return SimCLR(backbone, temperature=config.by_method("temperature"), **_with_h(config), **shared)


def _moco(config: PretrainConfig, backbone: keras.Model, shared: dict, _: int | None) -> MoCo:
    return MoCo(
        backbone,
        temperature=config.by_method("temperature"),
        momentum=config.by_method("target_momentum"),
        queue=config.queue,
        seed=config.seed,
        **shared,
    )


def _byol(config: PretrainConfig, backbone: keras.Model, shared: dict, total_steps: int | None) -> BYOL:
    momentum = config.by_method("target_momentum")
    hidden = config.predictor_hidden or config.projector_hidden
    return BYOL(backbone, predictor_hidden=hidden, momentum=momentum, steps=total_steps, **shared)


def _swav(config: PretrainConfig, backbone: keras.Model, shared: dict, _: int | None) -> SwAV:
    return SwAV(
        backbone,
        prototypes=config.prototypes,
        temperature=config.by_method("temperature"),
        epsilon=config.sinkhorn_epsilon,
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
