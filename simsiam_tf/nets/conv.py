"""Convolution with PyTorch's padding, computed on CPUs in the way that is fastest for its shape."""

from __future__ import annotations

import functools

import keras
import tensorflow as tf

from simsiam_tf.nets import winograd

MANY = 64  # channels from which a float32 convolution goes by Winograd's tiles
SHORT = 49  # pixels of a feature map up to which its weight gradient is a matrix product
SHORT_BY_TWO = 196  # the same at stride 2, where it takes MANY channels


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
        if self.pad:
            x = tf.pad(x, [[0, 0], [self.pad] * 2, [self.pad] * 2, [0, 0]])
        if training and _size(self.kernel_size) == 3:
            # Inference, and with it every export, is left to the plain op.
            stride = _size(self.strides)
            if stride == 1 and _has_many_channels(x, self.filters):
                return winograd.conv(x, tf.convert_to_tensor(self.kernel))
            if _has_short_rows(x, stride):
                return by_columns(x, tf.convert_to_tensor(self.kernel), stride)
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


def _has_many_channels(x: tf.Tensor, filters: int) -> bool:
    """Whether `winograd.conv` was measured to be faster: see docs/performance.md."""
    height, width, channels = x.shape[1:]
    if x.dtype != tf.float32 or None in (height, width):
        return False
    return min(channels, filters) >= MANY and _on_cpu()


def _has_short_rows(x: tf.Tensor, stride: int) -> bool:
    """Whether `by_columns` was measured to be faster: see docs/performance.md."""
    height, width, channels = x.shape[1:]
    if x.dtype != tf.bfloat16 or None in (height, width) or not _on_cpu():
        return False
    if stride == 1:
        return height * width <= min(SHORT, channels)
    pixels = _outputs(height, stride) * _outputs(width, stride)
    return channels >= MANY and pixels <= min(SHORT_BY_TWO, channels)


def _outputs(padded: int, stride: int, k: int = 3) -> int:
    return (padded - k) // stride + 1


def by_columns(x: tf.Tensor, kernel: tf.Tensor, stride: int = 1) -> tf.Tensor:
    """tf.nn.conv2d, "SAME" at stride 1, else "VALID", with another way to the kernel's gradient.

    The gradient is one product of the patches of x with the outputs' gradients. oneDNN's own
    kernel works along the rows of a feature map and, in bfloat16, wastes most of its vectors
    on rows of two to seven pixels.

    x: [B, H, W, I], padded already where the stride is not 1. kernel: [k, k, I, O] with odd k.
    """
    strides, padding = [1, stride, stride, 1], "SAME" if stride == 1 else "VALID"

    @tf.custom_gradient
    def conv(x: tf.Tensor, kernel: tf.Tensor):  # noqa: ANN202
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            to_x = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(x),
                filter=kernel,
                out_backprop=upstream,
                strides=strides,
                padding=padding,
            )
            columns = _columns(x, kernel.shape[0], stride)
            rows = tf.reshape(upstream, [-1, kernel.shape[3]])
            to_kernel = tf.matmul(columns, rows, transpose_a=True)
            return to_x, tf.reshape(to_kernel, kernel.shape)

        return tf.nn.conv2d(x, kernel, strides, padding), gradient

    return conv(x, kernel)


def _columns(x: tf.Tensor, k: int, stride: int) -> tf.Tensor:
    """The k × k patches of x [B, H, W, I], a stride apart: [B · h · w, k · k · I].

    x is padded for the convolution here at stride 1, and is already at others, as in `by_columns`.
    A pixel's row and column, each divided by the stride, with the remainder on an axis of its own or
    among the channels: pieces of that are whole blocks of memory, which is ten times as fast as strides.
    """
    edge = k // 2 if stride == 1 else 0
    height, width, channels = x.shape[1] + 2 * edge, x.shape[2] + 2 * edge, x.shape[3]
    down, right = _outputs(height, stride, k), _outputs(width, stride, k)
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
