"""The two MLP heads: projector (part of f) and predictor h, with Tables 1 and 3 as dictionaries."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import keras

from simsiam_tf.nets.batch_norm import BatchNorm


@dataclasses.dataclass(frozen=True)
class Placement:
    """The layers of the MLP heads that BN follows (Sec. 4.4); the backbone always has BN."""

    proj_hidden: bool
    proj_output: bool
    pred_hidden: bool
    pred_output: bool


BN_PLACEMENT = {  # Table 3         projector          predictor   ImageNet top-1, %
    #                         hidden   output     hidden  output
    "none": Placement(False, False, False, False),  # (a) 34.6
    "hidden": Placement(True, False, True, False),  # (b) 67.4
    "default": Placement(True, True, True, False),  # (c) 68.1
    "all": Placement(True, True, True, True),  # (d) unstable
}

PREDICTOR = {  # Table 1: (whether there is an h, whether it is trained); ImageNet top-1, %
    "trained": (True, True),  # 67.7, or 68.1 where the learning rate of h is constant (c)
    "fixed": (True, False),  # (b) 1.5
    "none": (False, False),  # (a) 0.1
}


def _fc(units: int, fan_in: int, bias: bool, name: str) -> keras.layers.Dense:
    # The paper's fc init: weights and biases from U(−√k, √k), k = 1/fan_in.
    # NOTE: the range of "lecun_uniform" is √3 times as wide.
    bound = fan_in**-0.5
    kernel: Any = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    biases: Any = keras.initializers.RandomUniform(-bound, bound)
    return keras.layers.Dense(
        units, use_bias=bias, kernel_initializer=kernel, bias_initializer=biases, name=name
    )


def _mlp(
    name: str, widths: list[int], bn: list[bool], output_affine: bool = True, output_shift: bool = True
) -> keras.Sequential:
    """fc → [BN] → ReLU, …, the last without ReLU. An fc followed by BN has no bias."""
    layers: list[Any] = [keras.Input((widths[0],))]
    last = len(widths) - 2
    for i, ((fan_in, units), has_bn) in enumerate(zip(itertools.pairwise(widths), bn, strict=True)):
        affine, shift = output_affine or i < last, output_shift or i < last
        layers.append(_fc(units, fan_in, bias=shift and not has_bn, name=f"fc{i + 1}"))
        if has_bn:
            layers.append(BatchNorm(affine=affine, center=shift, name=f"bn{i + 1}"))
        if i < last:
            layers.append(keras.layers.ReLU(name=f"relu{i + 1}"))
    return keras.Sequential(layers, name=name)


def projector(
    features: int,
    d: int = 2048,
    hidden: int | None = None,
    layers: int = 3,
    bn: str = "default",
    output_affine: bool = True,
    output_shift: bool = True,
) -> keras.Sequential:
    """Projection MLP, [B, features] → z [B, d] (Sec. 3: three fc layers, all 2048 wide).

    Args:
        features: width of the backbone's output.
        d: width of the output (App. B).
        hidden: width of the hidden layers; `features` when None, as in the official code. The paper's 2048
            (Sec. 3, App. B) is the width of ResNet-50's features.
        layers: fc layers, ≥ 1 (App. D uses two for CIFAR).
        bn: a row of `BN_PLACEMENT`.
        output_affine: False for an output BN without γ and β (Sec. 4.4: 68.2 %).
        output_shift: False for an output layer without a learned constant: no bias of the fc, no β of BN.
    """
    placement = BN_PLACEMENT[bn]
    widths = [features, *[hidden or features] * (layers - 1), d]
    has_bn = [placement.proj_hidden] * (layers - 1) + [placement.proj_output]
    return _mlp("projector", widths, has_bn, output_affine, output_shift)


def predictor(
    d: int = 2048, hidden: int | None = None, bn: str = "default", output_shift: bool = True
) -> keras.Sequential:
    """Prediction MLP h, z [B, d] → p [B, d], whose hidden layer has `hidden` or d // 4 units (Sec. 3).

    bn, output_shift: as for `projector`.
    """
    placement = BN_PLACEMENT[bn]
    widths = [d, hidden or d // 4, d]
    has_bn = [placement.pred_hidden, placement.pred_output]
    return _mlp("predictor", widths, has_bn, output_shift=output_shift)
