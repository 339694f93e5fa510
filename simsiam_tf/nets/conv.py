"""Convolution with PyTorch's padding, computed on CPUs in the way that is fastest for its shape."""

from __future__ import annotations

import functools

import keras
import tensorflow as tf

from simsiam_tf.nets import whole, winograd

BY_SHAPE = True  # whether a convolution's way is chosen by its shape; else it is always oneDNN's own
MANY = 64  # channels from which a float32 convolution goes by Winograd's tiles
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
        if training and (size == 3 or size == stride == 1) and None not in x.shape[1:] and _on_cpu():
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


@functools.cache
def _on_cpu() -> bool:
    return not (tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("TPU"))


def trained(x: tf.Tensor, kernel: tf.Tensor, stride: int = 1) -> tf.Tensor:
    """A 3×3 or 1×1 convolution with PyTorch's padding, in the way that was measured to be fastest.

    `scripts/bench_conv.py` compares them. x: [B, H, W, I] of known shape but for B. kernel: [k, k, I, O].
    stride: 1, or 2 with k = 3.
    """
    height, width, channels = x.shape[1:]
    if not BY_SHAPE:
        return direct(x, kernel, stride)
    if kernel.shape[0] == 1:
        return direct(x, kernel, 1, True)
    few = min(channels, kernel.shape[3])
    if stride == 1 and max(height, width) <= whole.SIDE:
        return whole.conv(x, kernel)
    if stride == 1 and x.dtype == tf.float32 and few >= MANY:
        return winograd.conv(x, kernel)
    return direct(x, kernel, stride, _has_short_rows(x, stride))


def _has_short_rows(x: tf.Tensor, stride: int) -> bool:
    """Whether the weight gradient was measured to be faster as a product with patches."""
    height, width, channels = x.shape[1:]
    pixels = -(-height // stride) * -(-width // stride)
    if x.dtype == tf.bfloat16:
        most = SHORT if stride == 1 else SHORT_BY_TWO if channels >= SOME else 0
        return pixels <= min(most, channels)
    return stride > 1 and channels >= MANY and pixels <= channels // 8


def direct(x: tf.Tensor, kernel: tf.Tensor, stride: int = 1, by_columns: bool = False) -> tf.Tensor:
    """tf.nn.conv2d with PyTorch's padding, its gradients computed as is fastest with oneDNN.

    At stride 2 the forward pass pads inside its kernel, the gradients outside of theirs: oneDNN's with
    padding inside take 20 to 30 times as long in bfloat16.

    by_columns: whether the kernel's gradient is one product of the patches of x with the outputs'
        gradients. oneDNN's own works along the rows of a feature map and wastes most of its vectors
        on rows of two to seven pixels.
    x: [B, H, W, I]. kernel: [k, k, I, O] with odd k.
    """
    edge = kernel.shape[0] // 2
    around = [[0, 0], [edge, edge], [edge, edge], [0, 0]]
    how = {"strides": [1, stride, stride, 1], "padding": "SAME" if stride == 1 else "VALID"}

    @tf.custom_gradient
    def conv(x: tf.Tensor, kernel: tf.Tensor):  # noqa: ANN202
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            wide = x if stride == 1 else tf.pad(x, around)
            to_x = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(wide), filter=kernel, out_backprop=upstream, **how
            )
            if stride > 1:
                to_x = to_x[:, edge : edge + x.shape[1], edge : edge + x.shape[2]]
            if not by_columns:
                return to_x, tf.raw_ops.Conv2DBackpropFilter(
                    input=wide, filter_sizes=kernel.shape, out_backprop=upstream, **how
                )
            columns = _columns(wide, kernel.shape[0], stride)
            rows = tf.reshape(upstream, [-1, kernel.shape[3]])
            to_kernel = tf.matmul(columns, rows, transpose_a=True)
            return to_x, tf.reshape(to_kernel, kernel.shape)

        return tf.nn.conv2d(x, kernel, stride, "SAME" if stride == 1 else around), gradient

    return conv(x, kernel)


def _columns(x: tf.Tensor, k: int, stride: int) -> tf.Tensor:
    """The k × k patches of x [B, H, W, I], a stride apart: [B · h · w, k · k · I].

    x is padded for the convolution here at stride 1, and is already at others.

    A pixel's row and column, each divided by the stride, with the remainder on an axis of its own or
    among the channels: pieces of that are whole blocks of memory, which is ten times as fast as strides.
    """
    if k == 1:
        return tf.reshape(x, [-1, x.shape[3]])
    edge = k // 2 if stride == 1 else 0
    height, width, channels = x.shape[1] + 2 * edge, x.shape[2] + 2 * edge, x.shape[3]
    down, right = ((n - k) // stride + 1 for n in (height, width))
    around = [[edge, edge + -n % stride] for n in (height, width)]  # and up to whole strides
    if around != [[0, 0], [0, 0]]:
        x = tf.pad(x, [[0, 0], *around, [0, 0]])
    split = tf.reshape(x, [-1, x.shape[1] // stride, stride, x.shape[2] // stride, stride * channels])

    def piece(i: int, j: int) -> tf.Tensor:
        (top, row), (left, column) = divmod(i, stride), divmod(j, stride)
        part = split[:, top : top + down, row, left : left + right]
        return part[..., column * channels : (column + 1) * channels]

    pieces = [piece(i, j) for i in range(k) for j in range(k)]
    return tf.reshape(tf.concat(pieces, axis=-1), [-1, k * k * channels])
