"""Convolutions of stride 2 by contiguous blocks of memory instead of strided slices."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from simsiam_tf.nets.cpu.static_shape import static_shape


def every_other(x: tf.Tensor) -> tf.Tensor:
    """x[:, ::2, ::2], the pixels that a 1×1 kernel of stride 2 sees.

    x: [B, H, W, C] of known H, W and C. Returns [B, ⌈H/2⌉, ⌈W/2⌉, C].
    """
    _, height, width, channels = static_shape(x)
    down, right = (height + 1) // 2, (width + 1) // 2

    @tf.custom_gradient
    def select(x: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            pixels = tf.reshape(upstream, [-1, down, 1, right, channels])
            wide = tf.pad(pixels, [[0, 0], [0, 0], [0, 1], [0, 0], [0, channels]])
            return _crop(tf.reshape(wide, [-1, 2 * down, 2 * right, channels]), height, width)

        even = tf.pad(x, [[0, 0], [0, height % 2], [0, width % 2], [0, 0]]) if height % 2 or width % 2 else x
        pairs = tf.reshape(even, [-1, down, 2, right, 2 * channels])
        return pairs[:, :, 0, :, :channels], gradient

    return select(x)


def input_gradient(upstream: tf.Tensor, kernel: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """The gradient of a 3×3 convolution of stride 2 with PyTorch's padding with respect to its input.

    Counted from 0, an even row of the input meets only the kernel's middle row. An odd row meets the kernel's
    last row and, for the outputs one row below, its first row. The same holds for columns. So the gradient of
    all even rows is a convolution of stride 1 over `upstream`, and that of all odd rows is another. Each has
    2 · I output channels: I of an even column, then I of the odd column to its right.

    upstream: [B, ⌈H/2⌉, ⌈W/2⌉, O], the outputs' gradients. kernel: [3, 3, I, O]. height, width: H and W.
    Returns [B, H, W, I].
    """
    _, down, right, filters = static_shape(upstream)
    channels = static_shape(kernel)[2]
    # A pair of columns meets its own output through the middle and last taps, the one to the right through
    # the first.
    taps = tf.gather(tf.pad(kernel, [[0, 0], [0, 1], [0, 0], [0, 0]]), [1, 2, 3, 0], axis=1)
    taps = tf.transpose(tf.reshape(taps, [3, 2, 2, channels, filters]), [0, 1, 4, 2, 3])
    taps = tf.reshape(taps, [3, 2, filters, 2 * channels])
    right_pixel: Any = [[0, 0], [0, 0], [0, 1], [0, 0]]  # padding
    below_and_right: Any = [[0, 0], [0, 1], [0, 1], [0, 0]]
    even = tf.nn.conv2d(upstream, taps[1:2], 1, right_pixel)
    odd = tf.nn.conv2d(upstream, tf.stack([taps[2], taps[0]]), 1, below_and_right)
    rows = [tf.reshape(row, [-1, down, 1, right * 2 * channels]) for row in (even, odd)]
    return _crop(tf.reshape(tf.concat(rows, axis=2), [-1, 2 * down, 2 * right, channels]), height, width)


def _crop(x: tf.Tensor, height: int, width: int) -> tf.Tensor:
    return x if x.shape[1:3] == [height, width] else x[:, :height, :width]
