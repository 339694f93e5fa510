"""Chooses how a training step computes a convolution on a CPU, by its shape and precision.

The choice is made only where no accelerator is used. `fast_cpu_convolutions(False)`, or the environment
variable SIMSIAM_TF_FAST_CPU_CONVOLUTIONS=0, leaves every convolution to TensorFlow. Inference, and with it
every exported file, always uses TensorFlow's own op. docs/convolutions.md has the measurements.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import tensorflow as tf

from simsiam_tf.nets.cpu import stride2, tiny_maps, winograd
from simsiam_tf.nets.cpu.static_shape import static_shape
from simsiam_tf.runtime.devices import on_cpu

DISPATCH_BY_SHAPE = os.environ.get("SIMSIAM_TF_FAST_CPU_CONVOLUTIONS", "1") != "0"
MIN_CHANNELS_WINOGRAD = 64  # of the input and of the output

Convolution = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # x, kernel → y


def fast_cpu_convolutions(enabled: bool) -> None:
    """Turns the choice by shape on or off, for all steps that are traced from now on."""
    global DISPATCH_BY_SHAPE
    DISPATCH_BY_SHAPE = enabled


def fastest(x: tf.Tensor, filters: int, kernel_size: int, stride: int) -> Convolution | None:
    """The algorithm that was measured to be fastest for a convolution with PyTorch's padding.

    x: [B, H, W, I]. None: TensorFlow's own op. `scripts/bench/bench_conv.py` compares the algorithms.
    """
    if not DISPATCH_BY_SHAPE or None in x.shape[1:] or not on_cpu():
        return None
    _, height, width, channels = static_shape(x)
    if stride == 2:
        return {1: stride2.conv1x1, 3: stride2.conv3x3}.get(kernel_size)
    if (kernel_size, stride) != (3, 1):
        return None
    if max(height, width) <= tiny_maps.MAX_SIDE:
        return tiny_maps.conv
    wide = min(channels, filters) >= MIN_CHANNELS_WINOGRAD
    return winograd.conv if wide and x.dtype == tf.float32 else None
