"""Convolutions of stride 2 by contiguous blocks of memory instead of strided slices."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from simsiam_tf.nets.cpu.static_shape import static_shape

MAX_PIXELS_PATCHES = 196  # pixels of an output, up to which the kernel's gradient is a product with patches
PADDED: Any = [[0, 0], [1, 1], [1, 1], [0, 0]]


def conv1x1(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """A 1×1 convolution of stride 2, computed on the pixels that it sees.

    x: [B, H, W, I] of known H, W and I. kernel: [1, 1, I, O]. Returns [B, ⌈H/2⌉, ⌈W/2⌉, O].
    """
    return tf.nn.conv2d(every_other(x), kernel, 1, "VALID")


def conv3x3(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """A 3×3 convolution of stride 2 with PyTorch's padding.

    Padding is part of the op in the forward pass, and a separate op in the gradients: oneDNN's gradients with
    padding take 20 to 30 times as long in bfloat16. oneDNN's gradient of the kernel works along the rows of a
    feature map and wastes most of its vectors on short ones, where a product with patches is faster.

    x: [B, H, W, I] of known H, W and I. kernel: [3, 3, I, O]. Returns [B, ⌈H/2⌉, ⌈W/2⌉, O].
    """
    _, height, width, channels = static_shape(x)
    options: Any = {"strides": [1, 2, 2, 1], "padding": "VALID"}

    @tf.custom_gradient
    def conv(x: tf.Tensor, kernel: tf.Tensor) -> Any:
        y = tf.nn.conv2d(x, kernel, 2, PADDED)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            sizes = tf.stack([tf.shape(x)[0], height + 2, width + 2, channels])
            to_x = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=sizes, filter=kernel, out_backprop=upstream, **options
            )
            _, down, right, filters = static_shape(y)
            if down * right <= MAX_PIXELS_PATCHES:
                rows = tf.reshape(upstream, [-1, filters])
                to_kernel = tf.reshape(tf.matmul(patches(x), rows, transpose_a=True), kernel.shape)
            else:
                to_kernel = tf.raw_ops.Conv2DBackpropFilter(
                    input=tf.pad(x, PADDED), filter_sizes=kernel.shape, out_backprop=upstream, **options
                )
            return to_x[:, 1:-1, 1:-1], to_kernel

        return y, gradient

    return conv(x, kernel)


def every_other(x: tf.Tensor) -> tf.Tensor:
    """x[:, ::2, ::2], [B, H, W, C] → [B, ⌈H/2⌉, ⌈W/2⌉, C], with a gradient by blocks, too."""
    _, height, width, channels = static_shape(x)
    down, right = (height + 1) // 2, (width + 1) // 2

    @tf.custom_gradient
    def select(x: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            pixels = tf.reshape(upstream, [-1, down, 1, right, channels])
            wide = tf.pad(pixels, [[0, 0], [0, 0], [0, 1], [0, 0], [0, channels]])
            return tf.reshape(wide, [-1, 2 * down, 2 * right, channels])[:, :height, :width]

        even = tf.pad(x, [[0, 0], [0, height % 2], [0, width % 2], [0, 0]])
        pairs = tf.reshape(even, [-1, down, 2, right, 2 * channels])
        return pairs[:, :, 0, :, :channels], gradient

    return select(x)


def patches(x: tf.Tensor) -> tf.Tensor:
    """The 3×3 patches of x [B, H, W, C] at every other pixel: [B · ⌈H/2⌉ · ⌈W/2⌉, 9 · C].

    Pairs of rows, and of columns, become axes of their own. Then every patch is made of contiguous blocks of
    memory, which is ten times as fast as strided slices.
    """
    _, height, width, channels = static_shape(x)
    down, right = (height + 1) // 2, (width + 1) // 2
    x = tf.pad(x, [[0, 0], [1, 1 + height % 2], [1, 1 + width % 2], [0, 0]])
    pairs = tf.reshape(x, [-1, down + 1, 2, right + 1, 2 * channels])
    blocks = []
    for top, row in ((0, 0), (0, 1), (1, 0)):
        line = pairs[:, top : top + down, row]
        blocks += [line[:, :, :right], line[:, :, 1:, :channels]]  # two pixels, and the third
    return tf.reshape(tf.concat(blocks, axis=-1), [-1, 9 * channels])
