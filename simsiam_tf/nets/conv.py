"""Convolution with PyTorch's padding, computed on CPUs in the way that is fastest for its shape."""

from __future__ import annotations

import keras
import tensorflow as tf

from simsiam_tf.nets.cpu import im2col, stride2, tiny_maps, winograd
from simsiam_tf.runtime.devices import on_cpu

BY_SHAPE = True  # whether a convolution's way is chosen by its shape; else it is always oneDNN's own
MANY = 64  # channels from which float32 goes by Winograd's tiles, and at stride 2 nothing goes by rows
SHORT = 49  # pixels of a feature map up to which its bfloat16 weight gradient is a product with patches
SHORT_BY_TWO = 196  # the same at stride 2, from SOME channels on
SOME = 32


@keras.saving.register_keras_serializable("simsiam_tf")
class Conv(keras.layers.Conv2D):
    """Bias-free convolution with PyTorch's padding: kernel // 2 on every side."""

    def __init__(self, filters: int, kernel_size: int, strides: int = 1, **kwargs) -> None:
        kwargs = {
            "use_bias": False,
            "kernel_initializer": keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
            **kwargs,
        }
        self.pad = _size(kernel_size) // 2 if _size(strides) > 1 else 0
        # "same" pads as PyTorch does at stride 1 only. At stride 2 the padding is its own op:
        # the gradient of a convolution with explicit padding is 30× slower in bfloat16.
        kwargs["padding"] = "same" if self.pad == 0 and _size(strides) == 1 else "valid"
        super().__init__(filters, kernel_size, strides, **kwargs)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        size, stride = _size(self.kernel_size), _size(self.strides)
        if training and size in (1, 3) and stride in (1, 2) and None not in x.shape[1:] and on_cpu():
            # Inference, and with it every export, is left to the plain op.
            return trained(x, tf.convert_to_tensor(self.kernel), stride)
        if self.pad:
            x = tf.pad(x, [[0, 0], [self.pad] * 2, [self.pad] * 2, [0, 0]])
        return super().call(x)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        b, h, w, _ = input_shape
        stride = _size(self.strides)
        shrink = [None if n is None else (n - 1) // stride + 1 for n in (h, w)]
        return (b, *shrink, self.filters)


def _size(value) -> int:
    return value if isinstance(value, int) else value[0]


def trained(x: tf.Tensor, kernel: tf.Tensor, stride: int = 1) -> tf.Tensor:
    """A 3×3 or 1×1 convolution with PyTorch's padding, in the way that was measured to be fastest.

    `scripts/bench/bench_conv.py` compares them. x: [B, H, W, I] of known shape but for B.
    kernel: [k, k, I, O]. stride: 1 or 2.
    """
    height, width, channels = x.shape[1:]
    if not BY_SHAPE:
        return direct(x, kernel, stride)
    if kernel.shape[0] == 1:
        return direct(x if stride == 1 else stride2.every_other(x), kernel, 1, True)
    few = min(channels, kernel.shape[3])
    if stride == 1 and max(height, width) <= tiny_maps.SIDE:
        return tiny_maps.conv(x, kernel)
    if stride == 1 and x.dtype == tf.float32 and few >= MANY:
        return winograd.conv(x, kernel)
    by_rows = stride == 2 and channels < MANY
    return direct(x, kernel, stride, _has_short_rows(x, stride), by_rows)


def _has_short_rows(x: tf.Tensor, stride: int) -> bool:
    """Whether the weight gradient was measured to be faster as a product with patches."""
    height, width, channels = x.shape[1:]
    pixels = -(-height // stride) * -(-width // stride)
    if x.dtype == tf.bfloat16:
        most = SHORT if stride == 1 else SHORT_BY_TWO if channels >= SOME else 0
        return pixels <= min(most, channels)
    return stride > 1 and channels >= MANY and pixels <= channels // 8


def direct(
    x: tf.Tensor, kernel: tf.Tensor, stride: int = 1, by_patches: bool = False, by_rows: bool = False
) -> tf.Tensor:
    """tf.nn.conv2d with PyTorch's padding, its gradients computed as is fastest with oneDNN.

    At stride 2 the forward pass pads inside its kernel, the gradients outside of theirs: oneDNN's with
    padding inside take 20 to 30 times as long in bfloat16.

    by_patches: whether the kernel's gradient is one product of the patches of x with the outputs'
        gradients. oneDNN's own works along the rows of a feature map and wastes most of its vectors
        on rows of two to seven pixels.
    by_rows: whether the input's gradient is that of `halving.input_gradient`; k = 3 and stride = 2.
    x: [B, H, W, I]. kernel: [k, k, I, O] with odd k.
    """
    size, channels = kernel.shape[0], kernel.shape[2]
    edge, (height, width) = size // 2, x.shape[1:3]
    around = [[0, 0], [edge, edge], [edge, edge], [0, 0]]
    how = {"strides": [1, stride, stride, 1], "padding": "SAME" if stride == 1 else "VALID"}

    def to_input(x: tf.Tensor, kernel: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        if by_rows:
            return stride2.input_gradient(upstream, kernel, height, width)
        beyond = 0 if stride == 1 else 2 * edge
        sizes = tf.stack([tf.shape(x)[0], height + beyond, width + beyond, channels])
        wide = tf.raw_ops.Conv2DBackpropInput(input_sizes=sizes, filter=kernel, out_backprop=upstream, **how)
        return wide[:, edge : edge + height, edge : edge + width] if beyond else wide

    def to_kernel(x: tf.Tensor, kernel: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
        if by_patches:
            return im2col.kernel_gradient(x, upstream, size, stride)
        return tf.raw_ops.Conv2DBackpropFilter(
            input=x if stride == 1 or not edge else tf.pad(x, around),
            filter_sizes=kernel.shape,
            out_backprop=upstream,
            **how,
        )

    @tf.custom_gradient
    def conv(x: tf.Tensor, kernel: tf.Tensor):  # noqa: ANN202
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return to_input(x, kernel, upstream), to_kernel(x, kernel, upstream)

        padding = around if stride > 1 and edge else how["padding"]
        return tf.nn.conv2d(x, kernel, stride, padding), gradient

    return conv(x, kernel)
