"""What the tests of the ways to a convolution are held against."""

import tensorflow as tf


def results(function, x, kernel, upstream):
    """(y, both gradients) of a convolution."""
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        y = function(x, kernel)
    return (y, *tape.gradient(y, [x, kernel], upstream))


def plain(x, kernel):
    return tf.nn.conv2d(x, kernel, 1, "SAME")
