"""The optimizer of a run and its learning rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simsiam_tf import optimizers
from simsiam_tf.config import FinetuneConfig, PretrainConfig, SupervisedConfig, method_row
from simsiam_tf.config.run import RunConfig
from simsiam_tf.optimizers import schedules
from simsiam_tf.runtime.display_text import counted
from simsiam_tf.runtime.errors import UserError


def cosine_schedule(
    config: PretrainConfig | SupervisedConfig, total_steps: int, size: int, factor: float = 1.0,
    final: float = 0.0, hold: int = 1,
) -> schedules.Cosine:  # fmt: skip
    """A run's learning rate: a warm-up, then a cosine.

    size: images in an epoch. factor: multiplies all rates, `final` too. final, hold: as for
    `schedules.Cosine`.
    """
    warmup = warmup_steps(config, total_steps, size)
    base = schedules.scaled(config.base_lr, config.batch_size)
    return schedules.cosine(base * factor, total_steps, warmup, final * factor, hold)


def warmup_steps(config: RunConfig, total_steps: int, size: int) -> int:
    """The number of steps of `warmup_epochs`. size: images in an epoch.

    Raises:
        UserError: the warm-up takes all steps of the run.
    """
    steps = int(config.warmup_epochs * size) // config.batch_size
    if steps >= total_steps:
        raise UserError(
            f"warmup_epochs={config.warmup_epochs:g}: is {counted(steps, 'step')} of "
            f"{counted(total_steps, 'step')} in all. Pass less, more `epochs`, or a smaller `batch_size`."
        )
    return steps


def build_optimizer(config: PretrainConfig, total_steps: int, size: int) -> optimizers.VariableRates:
    """The optimizer with its learning rate on a cosine.

    The predictor, the backbone, and parts that are frozen at first may have learning rates of their own.

    size: images in an epoch.
    """
    final, factor = schedules.scaled(config.final_lr, config.batch_size), config.predictor_lr_factor
    hold = max(1, round(size / config.batch_size)) if config.lr_update == "epoch" else 1
    decayed = cosine_schedule(config, total_steps, size, 1.0, final, hold)
    rates: dict[str, schedules.Schedule] = {}
    if config.predictor_lr == "constant":  # Table 1 c
        rates["predictor"] = schedules.constant(decayed.base * factor)
    elif factor != 1.0:
        rates["predictor"] = cosine_schedule(config, total_steps, size, factor, final, hold)
    for part, epochs in config.method_options.frozen_epochs.items():
        if epochs:
            rates[part] = schedules.after(int(epochs * size) // config.batch_size, decayed)
    if config.backbone_lr_factor != 1.0:
        rates["backbone"] = cosine_schedule(config, total_steps, size, config.backbone_lr_factor, final, hold)
    return optimizer_by_name(config, decayed, rates, method_row(config.method).lars)


def optimizer_by_name(
    config: PretrainConfig | FinetuneConfig,
    rate: schedules.Schedule,
    part_rates: Mapping[str, schedules.Schedule],
    lars: Mapping[str, Any],
) -> optimizers.VariableRates:
    """The optimizer that the option `optimizer` names. lars: further arguments of `optimizers.LARS`."""
    arguments: dict[str, Any] = {
        "momentum": config.momentum, "weight_decay": config.weight_decay,
        "part_learning_rates": part_rates, "layer_decay": config.layer_decay,
    }  # fmt: skip
    if config.optimizer == "adamw":
        return optimizers.AdamW(rate, beta_2=config.adam_beta2, **arguments)
    if config.optimizer == "lars":
        return optimizers.LARS(rate, **arguments, **lars)
    return optimizers.SGD(rate, **arguments)
