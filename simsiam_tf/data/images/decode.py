"""Image files → pixels in a graph: by TensorFlow's decoders where these show it right, else by `render`."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from simsiam_tf.data.images.header import MEGAPIXELS, ImageHeader, read_header
from simsiam_tf.data.images.render import COLOURS, PixelRule, render


def decode(data: tf.Tensor, rule: PixelRule = COLOURS, plain: tf.Tensor | bool | None = None) -> tf.Tensor:
    """Scalar string of an image file → uint8 [H, W, rule.channels], as `render` gives it; within a
    few levels of it where `rule.least_side` reduces it.

    plain: `ImageHeader.plain`; read from the header when None. True, with 1 or 3 channels, leaves all Python
        out of the graph.
    """

    def jpeg_at(ratio: int) -> tf.Tensor:
        # The exact transform gives exactly Pillow's pixels; TensorFlow's default differs by one level.
        method = "INTEGER_ACCURATE"
        return tf.io.decode_jpeg(data, channels=rule.channels, ratio=ratio, dct_method=method)

    def jpeg() -> tf.Tensor:
        if not rule.least_side:
            return jpeg_at(1)
        times = tf.reduce_min(tf.image.extract_jpeg_shape(data)[:2]) // rule.least_side
        powers = tf.math.count_nonzero(times >= tf.constant([2, 4, 8]), dtype=tf.int32)
        return tf.switch_case(powers, [lambda ratio=ratio: jpeg_at(ratio) for ratio in (1, 2, 4, 8)])

    def fast() -> tf.Tensor:
        return tf.cond(tf.io.is_jpeg(data), jpeg, lambda: tf.io.decode_png(data, channels=rule.channels))

    def rendered() -> tf.Tensor:
        return tf.numpy_function(lambda encoded: render(_as_bytes(encoded), rule), [data], tf.uint8)

    if rule.channels not in (1, 3):
        pixels = rendered()
    elif plain is True:
        pixels = fast()
    else:
        if plain is None:
            plain = tf.numpy_function(lambda encoded: read_header(_as_bytes(encoded)).plain, [data], tf.bool)
        pixels = tf.cond(tf.ensure_shape(plain, []), fast, rendered)
    return tf.ensure_shape(pixels, [None, None, rule.channels])


def _as_bytes(text: Any) -> bytes:
    """The bytes of a scalar string: `tf.numpy_function` gives bytes in a graph, an array outside of one."""
    return text if isinstance(text, bytes) else text.item()


def decode_checked(
    data: bytes, max_megapixels: float = MEGAPIXELS, decode_pixels: bool = True
) -> ImageHeader:
    """Checks that an image file can be decoded, and that this takes bounded memory; returns its header.

    decode_pixels: False checks only the header.

    Raises:
        ValueError: it cannot; the message says why in a few words.
    """
    header = read_header(data, max_megapixels)
    if not decode_pixels:
        return header
    if not header.plain:
        render(data, PixelRule(header.channels))
        return header
    try:
        decode(tf.constant(data), PixelRule(header.channels), tf.constant(True))
    except tf.errors.OpError as error:
        raise ValueError(f"a {header.format} that is damaged or cut off") from error
    return header
