"""A 3×3 convolution of a feature map of at most 2×2 pixels, as one matrix product.

Each output sees every input pixel through one tap of the kernel, so the convolution is a fully connected
layer whose matrix consists of taps. For a 2×2 map that is 4 · 4 products of a tap and a pixel,
whereas a convolution that also multiplies the zeros of the padding takes 4 · 9.
"""

from __future__ import annotations

import itertools
from typing import Any

import tensorflow as tf

from simsiam_tf.nets.cpu.static_shape import static_shape

MAX_SIDE = 2  # pixels; centred on any pixel of such a map, a 3×3 kernel covers the whole map

Tap = tuple[int, int]


def conv(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """tf.nn.conv2d(x, kernel, 1, "SAME").

    x: [B, H, W, I] with known H, W ≤ MAX_SIDE. kernel: [3, 3, I, O]. Returns [B, H, W, O].

    Raises:
        ValueError: for a larger map.
    """
    _, height, width, channels = static_shape(x)
    if max(height, width) > MAX_SIDE:
        raise ValueError(f"A map of {height}×{width} pixels is too large: {MAX_SIDE}×{MAX_SIDE} at most.")
    filters = static_shape(kernel)[3]
    taps = _taps(height, width)

    @tf.custom_gradient
    def multiply(x: tf.Tensor, kernel: tf.Tensor) -> Any:
        rows = tf.reshape(x, [-1, height * width * channels])
        matrix = tf.concat([tf.concat([kernel[tap] for tap in row], axis=1) for row in taps], axis=0)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            upstream = tf.reshape(upstream, [-1, height * width * filters])
            to_x = tf.matmul(upstream, matrix, transpose_b=True)
            to_matrix = tf.matmul(rows, upstream, transpose_a=True)
            blocks = tf.reshape(to_matrix, [height * width, channels, height * width, filters])
            return tf.reshape(to_x, [-1, height, width, channels]), _sum_by_tap(blocks, taps)

        return tf.reshape(tf.matmul(rows, matrix), [-1, height, width, filters]), gradient

    return multiply(x, kernel)


def _taps(height: int, width: int) -> list[list[Tap]]:
    """The tap that joins an input pixel (row of the list) to an output pixel (column)."""
    pixels = list(itertools.product(range(height), range(width)))
    return [[(1 + i - k, 1 + j - m) for k, m in pixels] for i, j in pixels]


def _sum_by_tap(blocks: tf.Tensor, taps: list[list[Tap]]) -> tf.Tensor:
    """The kernel's gradient: for each tap, the sum over the pairs of pixels that it joins.

    blocks: [input pixels, I, output pixels, O]. Returns [3, 3, I, O].
    """
    by_tap: dict[Tap, list[tf.Tensor]] = {(i, j): [] for i in range(3) for j in range(3)}
    for i, row in enumerate(taps):
        for k, tap in enumerate(row):
            by_tap[tap].append(blocks[i, :, k])
    unused = tf.zeros_like(blocks[0, :, 0])
    sums = [tf.add_n(terms) if terms else unused for terms in by_tap.values()]
    return tf.reshape(tf.stack(sums), [3, 3, *unused.shape])
