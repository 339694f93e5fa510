"""The gradient of a convolution's kernel as one product of input patches with the outputs' gradients."""

from __future__ import annotations

import tensorflow as tf

from simsiam_tf.nets.cpu.static_shape import static_shape

MAX_TRANSPOSED_FILTERS = 128  # most filters for which the product is computed transposed


def kernel_gradient(x: tf.Tensor, upstream: tf.Tensor, size: int, stride: int) -> tf.Tensor:
    """The gradient of a convolution with PyTorch's padding with respect to its kernel: [size, size, I, O].

    x: [B, H, W, I], not padded. upstream: [B, h, w, O], the outputs' gradients.
    size: the kernel's side, odd. stride: 1 where size is 1.
    """
    filters, channels = static_shape(upstream)[3], static_shape(x)[3]
    patches, rows = _patches(x, size, stride), tf.reshape(upstream, [-1, filters])
    if filters < size * size * channels and filters <= MAX_TRANSPOSED_FILTERS:
        gradient = tf.transpose(tf.matmul(rows, patches, transpose_a=True))
    else:
        gradient = tf.matmul(patches, rows, transpose_a=True)
    return tf.reshape(gradient, [size, size, channels, filters])


def _patches(x: tf.Tensor, size: int, stride: int) -> tf.Tensor:
    """The size × size patches of x [B, H, W, I], a stride apart: [B · h · w, size · size · I].

    Rows are split into (row // stride, row % stride), columns likewise with the remainder among the
    channels. Then every patch is made of contiguous blocks of memory, which is ten times as fast as
    strided slices. The pixels of a row within one stride are one block.
    """
    _, height, width, channels = static_shape(x)
    if size == 1:
        return tf.reshape(x, [-1, channels])
    edge = size // 2
    down, right = ((n - 1) // stride + 1 for n in (height, width))
    around = [[edge, edge + (-n - 2 * edge) % stride] for n in (height, width)]  # up to whole strides
    x = tf.pad(x, [[0, 0], *around, [0, 0]])
    _, height, width, _ = static_shape(x)
    split = tf.reshape(x, [-1, height // stride, stride, width // stride, stride * channels])

    def block(i: int, j: int) -> tf.Tensor:
        (top, row), left = divmod(i, stride), j // stride
        block_channels = min(stride, size - j) * channels
        return split[:, top : top + down, row, left : left + right, :block_channels]

    blocks = [block(i, j) for i in range(size) for j in range(0, size, stride)]
    return tf.reshape(tf.concat(blocks, axis=-1), [-1, size * size * channels])
