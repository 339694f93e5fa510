"""Convolutions of stride 2 on CPUs, by whole blocks of memory instead of by strides.

Measured in docs/convolutions.md, chosen in `nets.conv`.
"""

from __future__ import annotations

import tensorflow as tf


def every_other(x: tf.Tensor) -> tf.Tensor:
    """x[:, ::2, ::2], which is all that a 1×1 kernel of stride 2 sees.

    x: [B, H, W, C] of known H, W and C. Returns [B, ⌈H/2⌉, ⌈W/2⌉, C].
    """
    height, width, channels = x.shape[1:]
    down, right = (height + 1) // 2, (width + 1) // 2

    @tf.custom_gradient
    def taken(x: tf.Tensor):  # noqa: ANN202
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            pixels = tf.reshape(upstream, [-1, down, 1, right, channels])
            wide = tf.pad(pixels, [[0, 0], [0, 0], [0, 1], [0, 0], [0, channels]])
            return _cut(tf.reshape(wide, [-1, 2 * down, 2 * right, channels]), height, width)

        even = tf.pad(x, [[0, 0], [0, height % 2], [0, width % 2], [0, 0]]) if height % 2 or width % 2 else x
        pairs = tf.reshape(even, [-1, down, 2, right, 2 * channels])
        return pairs[:, :, 0, :, :channels], gradient

    return taken(x)


def input_gradient(upstream: tf.Tensor, kernel: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """The gradient of a 3×3 convolution of stride 2 with PyTorch's padding by its input.

    An even row of the input is seen by the kernel's middle row alone, an odd one by the last and, from the
    outputs below, by the first; columns alike. So each kind of row is a convolution of stride 1
    of the outputs' gradients, with two pixels, an even and an odd one, as its channels.

    upstream: [B, ⌈H/2⌉, ⌈W/2⌉, O]. kernel: [3, 3, I, O]. height, width: H and W. Returns [B, H, W, I].
    """
    down, right, filters = upstream.shape[1:]
    channels = kernel.shape[2]
    # Of the outputs at, and right of, a pair of columns: the middle and last taps; none and the first.
    taps = tf.gather(tf.pad(kernel, [[0, 0], [0, 1], [0, 0], [0, 0]]), [1, 2, 3, 0], axis=1)
    taps = tf.transpose(tf.reshape(taps, [3, 2, 2, channels, filters]), [0, 1, 4, 2, 3])
    taps = tf.reshape(taps, [3, 2, filters, 2 * channels])
    even = tf.nn.conv2d(upstream, taps[1:2], 1, [[0, 0], [0, 0], [0, 1], [0, 0]])
    odd = tf.nn.conv2d(upstream, tf.stack([taps[2], taps[0]]), 1, [[0, 0], [0, 1], [0, 1], [0, 0]])
    rows = [tf.reshape(row, [-1, down, 1, right * 2 * channels]) for row in (even, odd)]
    return _cut(tf.reshape(tf.concat(rows, axis=2), [-1, 2 * down, 2 * right, channels]), height, width)


def _cut(x: tf.Tensor, height: int, width: int) -> tf.Tensor:
    return x if x.shape[1:3] == [height, width] else x[:, :height, :width]
