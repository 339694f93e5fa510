"""The state of the training that wrote a checkpoint of PyTorch: momentum, learning rates, schedule."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from simsiam_tf.pretrained.torch_weights import backbone_layout, torch_files

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # tensors that no optimizer updates
_BATCH = 512  # batch size of the official code's command


def momentum_networks(
    checkpoint: torch_files.Checkpoint, converted: backbone_layout.Converted
) -> dict[str, keras.Model]:
    """SGD's momentum: "momentum_NAME" → a network of the same layers as NAME, which holds it as variables.

    Empty where the checkpoint has no momentum that fits, or Nesterov momentum. An optimizer of PyTorch
    numbers the parameters in the order of the state_dict, without BN's buffers.
    """
    state = checkpoint.state
    try:
        groups, by_number = checkpoint.optimizer["param_groups"], checkpoint.optimizer["state"]
        numbers = [number for group in groups for number in group["params"]]
        names = [name for name in state if not name.endswith(_BUFFERS)]
        momenta = {
            name: by_number[number]["momentum_buffer"]
            for name, number in zip(names, numbers, strict=True)
            if by_number.get(number, {}).get("momentum_buffer") is not None
        }
        fits = all(tuple(buffer.shape) == state[name].shape for name, buffer in momenta.items())
        if not momenta or not fits or any(group.get("nesterov") for group in groups):
            return {}
        momenta = {name: torch_files.as_array(name, buffer) for name, buffer in momenta.items()}
        if not all(np.isfinite(buffer).all() for buffer in momenta.values()):
            return {}
        zeros = {name: np.zeros_like(array) for name, array in state.items()}
        momentum = backbone_layout.from_torch(
            zeros | momenta, stem=converted.architecture["stem"], prefix=converted.prefix
        ).networks
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}
    return {f"momentum_{name}": network for name, network in momentum.items()}


def known_options(checkpoint: torch_files.Checkpoint, program: str) -> tuple[dict[str, Any], str]:
    """(options of pre-training that a checkpoint or its program determines, its learning rates in words).

    program: key of `LAYOUTS` or `READ_ONLY`. The official code marks the predictor's parameters by "fix_lr"
    where their rate stays at its first value, and changes the other rate once an epoch, on a cosine. The
    code of solo-learn never decays the predictor's rate.
    """
    if program == "solo_learn":
        return {"predictor_lr": "constant"}, ""
    if program != "facebookresearch":
        return {}, ""
    options: dict[str, Any] = {"lr_update": "epoch"}
    groups = checkpoint.optimizer.get("param_groups")
    groups = [g for g in groups if isinstance(g, dict)] if isinstance(groups, list) else []
    for name in ("momentum", "weight_decay"):
        if groups and _is_rate(groups[0].get(name)):
            options[name] = groups[0][name]
    rates = [(bool(g.get("fix_lr")), float(g["lr"])) for g in groups if _is_rate(g.get("lr"))]
    constant, decayed = ([rate for fixed, rate in rates if fixed is state] for state in (True, False))
    if not constant:
        last = f"{decayed[0]:.4g} in its last epoch, for all parameters" if decayed else ""
        return options, last
    options["predictor_lr"] = "constant"
    words = (
        f"{constant[0]:.4g} at first, and always for the predictor: base_lr × batch_size/256, such as "
        f"base_lr={constant[0] * 256 / _BATCH:.4g} with batch_size={_BATCH}"
    )
    epochs = _epochs_of_cosine(decayed[0] / constant[0], checkpoint.epoch) if decayed else None
    return options, words + (f"; on a cosine of {epochs} epochs" if epochs else "")


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _epochs_of_cosine(share: float, done: int | None) -> int | None:
    """The length in epochs of a cosine whose rate in epoch number `done` is `share` of its highest.

    The share is ½(1 + cos(π (done − 1) / epochs)), as the official code counts; None where no whole number of
    epochs fits.
    """
    if not done or not 0 < share < 1:
        return None
    epochs = (done - 1) * math.pi / math.acos(2 * share - 1)
    return round(epochs) if abs(epochs - round(epochs)) < 0.01 and round(epochs) >= done else None
