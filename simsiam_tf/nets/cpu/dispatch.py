"""Chooses how a training step computes a convolution on a CPU, by its shape and precision.

A process with a GPU or TPU leaves every convolution to TensorFlow, as do `fast_cpu_convolutions(False)` and
the environment variable SIMSIAM_TF_FAST_CPU_CONVOLUTIONS=0. Inference always uses TensorFlow's own op.
docs/convolutions.md has the measurements.
"""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf

from simsiam_tf.nets.cpu import im2col, stride2, tiny_maps, winograd
from simsiam_tf.nets.cpu.static_shape import static_shape
from simsiam_tf.runtime.devices import on_cpu

DISPATCH_BY_SHAPE = os.environ.get("SIMSIAM_TF_FAST_CPU_CONVOLUTIONS", "1") != "0"
# Fewest input and output channels for Winograd, which is used at stride 1 in float32. At stride 2, in any
# precision, `stride2.input_gradient` is used where there are fewer input channels.
MIN_CHANNELS_WINOGRAD = 64
# In bfloat16 the weight gradient is a product with patches where the output has no more pixels than the
# input has channels, and no more than these:
MAX_PIXELS_IM2COL = 49  # at stride 1
MAX_PIXELS_IM2COL_STRIDE2 = 196  # at stride 2, where the input has at least so many channels:
MIN_CHANNELS_IM2COL_STRIDE2 = 32


def fast_cpu_convolutions(enabled: bool) -> None:
    """Turns the choice by shape on or off, for all steps that are traced from now on."""
    global DISPATCH_BY_SHAPE
    DISPATCH_BY_SHAPE = enabled


def is_dispatched(x: tf.Tensor, kernel_size: int, stride: int) -> bool:
    """Whether `conv_training` computes this convolution; otherwise TensorFlow's op does."""
    has_static_shape = None not in x.shape[1:]
    return DISPATCH_BY_SHAPE and kernel_size in (1, 3) and stride in (1, 2) and has_static_shape and on_cpu()


def conv_training(x: tf.Tensor, kernel: tf.Tensor, stride: int = 1) -> tf.Tensor:
    """A 3×3 or 1×1 convolution with PyTorch's padding, by the algorithm that was measured to be fastest.

    `scripts/bench/bench_conv.py` compares the algorithms. x: [B, H, W, I] of known shape but for B.
    kernel: [k, k, I, O]. stride: 1 or 2.
    """
    _, height, width, channels = static_shape(x)
    if kernel.shape[0] == 1:
        return conv_onednn(x if stride == 1 else stride2.every_other(x), kernel, 1, True)
    if stride == 1 and max(height, width) <= tiny_maps.MAX_SIDE:
        return tiny_maps.conv(x, kernel)
    if (
        stride == 1
        and x.dtype == tf.float32
        and min(channels, static_shape(kernel)[3]) >= MIN_CHANNELS_WINOGRAD
    ):
        return winograd.conv(x, kernel)
    by_rows = stride == 2 and channels < MIN_CHANNELS_WINOGRAD
    return conv_onednn(x, kernel, stride, _is_im2col_faster(x, stride), by_rows)


def _is_im2col_faster(x: tf.Tensor, stride: int) -> bool:
    """Whether the weight gradient was measured to be faster as a product with patches."""
    _, height, width, channels = static_shape(x)
    pixels = -(-height // stride) * -(-width // stride)
    if x.dtype == tf.bfloat16:
        at_stride2 = MAX_PIXELS_IM2COL_STRIDE2 if channels >= MIN_CHANNELS_IM2COL_STRIDE2 else 0
        return pixels <= min(MAX_PIXELS_IM2COL if stride == 1 else at_stride2, channels)
    return stride > 1 and channels >= MIN_CHANNELS_WINOGRAD and pixels <= channels // 8


def conv_onednn(
    x: tf.Tensor, kernel: tf.Tensor, stride: int = 1, by_patches: bool = False, by_rows: bool = False
) -> tf.Tensor:
    """tf.nn.conv2d with PyTorch's padding and the gradients that are fastest with oneDNN.

    At stride 2, padding is part of the op in the forward pass, and a separate op in the gradients: oneDNN's
    gradients with padding take 20 to 30 times as long in bfloat16.

    by_patches: whether the kernel's gradient is one product of the patches of x with the outputs'
        gradients. oneDNN's algorithm works along the rows of a feature map and wastes most of its vectors
        on rows of two to seven pixels.
    by_rows: whether `stride2.input_gradient` computes the input's gradient; for k = 3 and stride 2 alone.
    x: [B, H, W, I]. kernel: [k, k, I, O] with odd k. stride: 1 or 2.
    """
    size, _, channels, _ = static_shape(kernel)
    edge, (height, width) = size // 2, static_shape(x)[1:3]
    around = [[0, 0], [edge, edge], [edge, edge], [0, 0]]
    options: Any = {"strides": [1, stride, stride, 1], "padding": "SAME" if stride == 1 else "VALID"}

    def input_gradient(x: tf.Tensor, kernel: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        if by_rows:
            return stride2.input_gradient(upstream, kernel, height, width)
        margin = 0 if stride == 1 else 2 * edge
        sizes = tf.stack([tf.shape(x)[0], height + margin, width + margin, channels])
        wide = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=sizes, filter=kernel, out_backprop=upstream, **options
        )
        return wide[:, edge : edge + height, edge : edge + width] if margin else wide

    def kernel_gradient(x: tf.Tensor, kernel: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        if by_patches:
            return im2col.kernel_gradient(x, upstream, size, stride)
        return tf.raw_ops.Conv2DBackpropFilter(
            input=x if stride == 1 or not edge else tf.pad(x, around),
            filter_sizes=kernel.shape,
            out_backprop=upstream,
            **options,
        )

    @tf.custom_gradient
    def conv(x: tf.Tensor, kernel: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return input_gradient(x, kernel, upstream), kernel_gradient(x, kernel, upstream)

        padding: Any = around if stride > 1 and edge else options["padding"]
        return tf.nn.conv2d(x, kernel, stride, padding), gradient

    return conv(x, kernel)
