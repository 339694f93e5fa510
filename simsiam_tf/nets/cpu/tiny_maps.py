"""A 3×3 convolution of a feature map of at most 2×2 pixels, as one matrix product.

Each output sees every input pixel through one tap of the kernel, so the convolution is a fully connected
layer whose matrix consists of taps. A 2×2 map takes 4 · 4 products of a pixel's channels, where a
kernel that looks beyond the edge takes 4 · 9.
"""

from __future__ import annotations

import itertools

import tensorflow as tf

from simsiam_tf.nets.cpu.static_shape import static_shape

MAX_SIDE = 2  # pixels; at any pixel of such a map a 3×3 kernel sees the whole map


def conv(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """tf.nn.conv2d(x, kernel, 1, "SAME").

    x: [B, H, W, I] with known H, W ≤ MAX_SIDE. kernel: [3, 3, I, O]. Returns [B, H, W, O].
    """
    _, height, width, channels = static_shape(x)
    filters = static_shape(kernel)[3]
    pixels = list(itertools.product(range(height), range(width)))
    taps = [
        3 * (1 + i - k) + 1 + j - m for i, j in pixels for k, m in pixels
    ]  # of input (i, j), output (k, m)
    # The taps are chosen by a product, since the gradient of an index would fill a kernel of zeros for each.
    blocks = tf.matmul(tf.one_hot(taps, 9, dtype=x.dtype), tf.reshape(kernel, [9, channels * filters]))
    blocks = tf.reshape(blocks, [len(pixels), len(pixels), channels, filters])
    matrix = tf.reshape(tf.transpose(blocks, [0, 2, 1, 3]), [len(pixels) * channels, len(pixels) * filters])
    y = tf.matmul(tf.reshape(x, [-1, len(pixels) * channels]), matrix)
    return tf.reshape(y, [-1, height, width, filters])
