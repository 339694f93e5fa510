"""A 3×3 convolution of a feature map of at most 2×2 pixels, as one matrix product.

Every output then sees every input pixel, through one tap of the kernel each, so that the convolution is a
fully connected layer whose matrix is laid out of the taps. A 2×2 map takes 4 · 4 products of a pixel's
channels instead of the 4 · 9 of a kernel that looks beyond the edge: see docs/convolutions.md.
"""

from __future__ import annotations

import itertools

import tensorflow as tf

SIDE = 2  # pixels of a map's side that a 3×3 kernel spans from any of them

Tap = tuple[int, int]


def conv(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """tf.nn.conv2d(x, kernel, 1, "SAME").

    x: [B, H, W, I] with known H, W ≤ SIDE. kernel: [3, 3, I, O]. Returns [B, H, W, O].

    Raises:
        ValueError: for a larger map.
    """
    height, width, channels = x.shape[1:]
    if max(height, width) > SIDE:
        raise ValueError(f"A map of {height}×{width} pixels is too large: {SIDE}×{SIDE} at most.")
    filters = kernel.shape[3]
    taps = _taps(height, width)

    @tf.custom_gradient
    def product(x: tf.Tensor, kernel: tf.Tensor):  # noqa: ANN202
        rows = tf.reshape(x, [-1, height * width * channels])
        matrix = tf.concat([tf.concat([kernel[tap] for tap in row], axis=1) for row in taps], axis=0)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            upstream = tf.reshape(upstream, [-1, height * width * filters])
            to_x = tf.matmul(upstream, matrix, transpose_b=True)
            to_matrix = tf.matmul(rows, upstream, transpose_a=True)
            blocks = tf.reshape(to_matrix, [height * width, channels, height * width, filters])
            return tf.reshape(to_x, [-1, height, width, channels]), _summed(blocks, taps)

        return tf.reshape(tf.matmul(rows, matrix), [-1, height, width, filters]), gradient

    return product(x, kernel)


def _taps(height: int, width: int) -> list[list[Tap]]:
    """The tap between each input pixel, a row each, and each output pixel."""
    pixels = list(itertools.product(range(height), range(width)))
    return [[(1 + i - k, 1 + j - m) for k, m in pixels] for i, j in pixels]


def _summed(blocks: tf.Tensor, taps: list[list[Tap]]) -> tf.Tensor:
    """The kernel's gradient: of each tap, the sum over the pairs of pixels that it joins.

    blocks: [input pixels, I, output pixels, O]. Returns [3, 3, I, O].
    """
    found: dict[Tap, list[tf.Tensor]] = {tap: [] for tap in itertools.product(range(3), repeat=2)}
    for i, row in enumerate(taps):
        for k, tap in enumerate(row):
            found[tap].append(blocks[i, :, k])
    unused = tf.zeros_like(blocks[0, :, 0])
    sums = [tf.add_n(parts) if parts else unused for parts in found.values()]
    return tf.reshape(tf.stack(sums), [3, 3, *unused.shape])
