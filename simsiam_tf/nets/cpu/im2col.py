"""The gradient of a convolution's kernel as one product: patches of the input with the outputs' gradients."""

from __future__ import annotations

import tensorflow as tf

NARROW = 128  # outputs up to which they are turned instead of the patches, where there are fewer


def kernel_gradient(x: tf.Tensor, upstream: tf.Tensor, size: int, stride: int) -> tf.Tensor:
    """The gradient of a convolution with PyTorch's padding by its kernel.

    x: [B, H, W, I], not padded. upstream: [B, h, w, O], the outputs' gradients.
    size, stride: of the kernel, odd; and 1 where the kernel has one pixel.
    Returns [size, size, I, O].
    """
    filters = upstream.shape[3]
    patches, rows = _patches(x, size, stride), tf.reshape(upstream, [-1, filters])
    if filters < patches.shape[1] and filters <= NARROW:
        found = tf.transpose(tf.matmul(rows, patches, transpose_a=True))
    else:
        found = tf.matmul(patches, rows, transpose_a=True)
    return tf.reshape(found, [size, size, x.shape[3], filters])


def _patches(x: tf.Tensor, size: int, stride: int) -> tf.Tensor:
    """The size × size patches of x [B, H, W, I], a stride apart: [B · h · w, size · size · I].

    A pixel's row and column, each divided by the stride, with the remainder on an axis of its own or
    among the channels: pieces of that are whole blocks of memory, which is ten times as fast as strides.
    Neighbours of a row that the same step of a stride covers are one piece.
    """
    height, width, channels = x.shape[1:]
    if size == 1:
        return tf.reshape(x, [-1, channels])
    edge = size // 2
    down, right = ((n - 1) // stride + 1 for n in (height, width))
    around = [[edge, edge + (-n - 2 * edge) % stride] for n in (height, width)]  # up to whole strides
    x = tf.pad(x, [[0, 0], *around, [0, 0]])
    split = tf.reshape(x, [-1, x.shape[1] // stride, stride, x.shape[2] // stride, stride * channels])

    def piece(i: int, j: int) -> tf.Tensor:
        (top, row), left = divmod(i, stride), j // stride
        together = min(stride, size - j) * channels
        return split[:, top : top + down, row, left : left + right, :together]

    pieces = [piece(i, j) for i in range(size) for j in range(0, size, stride)]
    return tf.reshape(tf.concat(pieces, axis=-1), [-1, size * size * channels])
