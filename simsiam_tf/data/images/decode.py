"""Image files → pixels. A file is checked before any of its pixels is decoded.

A file of kilobytes can make its decoder take gigabytes or hours, and a file named .jpg can be a pipe that
never ends. So only regular files are read, and only up to a size; then what a decoder would do is bounded by
patterns that no decoder accepts a file without.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct

import tensorflow as tf
from PIL import WebPImagePlugin

MEGAPIXELS = 100.0  # few cameras have more
MAX_SCANS = 100  # most in a JPEG: its decoder passes over all pixels for each; encoders write about ten
MAX_TEXTS = 16  # compressed texts and profiles of a PNG: its decoder expands each to as much as 8 MB

_MAGIC = {  # the first bytes by which TensorFlow's decoder tells formats apart
    "JPEG": rb"\xff\xd8\xff", "PNG": rb"\x89PNG\r\n\x1a\n", "GIF": rb"GIF8", "BMP": rb"BM",
    "WebP": rb"RIFF....WEBP",
}  # fmt: skip
# NOTE: each pattern has all bytes that libjpeg and libpng insist on. So nothing that they decode is missed,
# and what matches by chance, such as a thumbnail or a text, is too rare to matter.
# Length, height and width, channels:
_JPEG_FRAME = re.compile(rb"\xff(?=[\xc0-\xcf]\0(.)\x08(....)([\x01-\x04]))", re.DOTALL)
_JPEG_SCAN = re.compile(rb"\xff\xda\0(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")  # length, channels
_PNG_TEXT = re.compile(rb"iTXt(?=[^\0]{0,79}\0[^\0])")  # keyword, 0, whether it is compressed


def decode(data: tf.Tensor, channels: int = 3) -> tf.Tensor:
    """Scalar string of a JPEG, PNG, WebP, BMP or GIF → uint8 [H, W, channels]; an animation's first frame."""

    def jpeg() -> tf.Tensor:
        # The exact transform gives exactly Pillow's pixels; TensorFlow's default differs by one level.
        return tf.io.decode_jpeg(data, channels=channels, dct_method="INTEGER_ACCURATE")

    def other() -> tf.Tensor:
        return tf.io.decode_image(data, channels=channels, expand_animations=False)

    return tf.ensure_shape(tf.cond(tf.io.is_jpeg(data), jpeg, other), [None, None, channels])


def read_regular_file(path: bytes | str | os.PathLike, limit: int) -> bytes:
    """The bytes of a file, at most limit + 1. Raises OSError, or ValueError for a pipe, device or folder."""
    if stat.S_ISREG(os.stat(path).st_mode):  # NOTE: opening a device can have an effect
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return file.read(limit + 1)
    raise ValueError("not a regular file")


def read_image_file(path: bytes | str, max_megapixels: float = MEGAPIXELS) -> bytes:
    """Reads an image file that is safe to decode.

    Decoding its bytes takes at most 12 bytes of memory for each pixel of `max_megapixels`, besides the file
    itself; most images take 3.

    Raises:
        OSError: the file is missing, not permitted, or a link that leads nowhere or to itself.
        ValueError: anything else is wrong; the message says what in a few words.
    """
    max_pixels = int(max_megapixels * 1e6)
    limit = 4 * max_pixels + 2**16  # bytes of an image of that many pixels without compression
    data = read_regular_file(path, limit) if os.stat(path).st_size <= limit else None
    if data is None or len(data) > limit:
        raise ValueError(f"above {limit} bytes, the most that max_megapixels={max_megapixels:g} allows")
    if not data:
        raise ValueError("empty file")
    matches = (name for name, first in _MAGIC.items() if re.match(first, data, re.DOTALL))
    image_format = next(matches, "")
    if not image_format:
        raise ValueError("not a JPEG, PNG, WebP, BMP or GIF")
    if image_format == "GIF":
        pixels, shape = _gif_pixels(data, max_pixels)
    else:
        width, height = _size(image_format, data)
        pixels, shape = width * height, f"{width}×{height}"
    if pixels > max_pixels:
        raise ValueError(f"{shape} pixels, above max_megapixels={max_megapixels:g}")
    if image_format == "JPEG" and len(_JPEG_SCAN.findall(data)) > MAX_SCANS:
        raise ValueError(f"more than {MAX_SCANS} scans")
    if image_format == "PNG":
        texts = data.count(b"zTXt") + data.count(b"iCCP") + len(_PNG_TEXT.findall(data))
        if texts > MAX_TEXTS:
            raise ValueError(f"more than {MAX_TEXTS} compressed texts")
    return data


def _size(image_format: str, data: bytes) -> tuple[int, int]:
    """(width, height) that the decoder makes room for."""
    try:
        if image_format == "PNG":  # libpng refuses files in which another chunk comes first
            return struct.unpack(">II", data[16:24])
        if image_format == "BMP":
            width, height = struct.unpack("<ii", data[18:26])  # a negative height: the first row on top
            return abs(width), abs(height)
        if image_format == "JPEG":
            frames = _JPEG_FRAME.findall(data)
            sides = [struct.unpack(">HH", s) for length, s, n in frames if length[0] == 8 + 3 * n[0]]
            height, width = max(sides, key=lambda s: s[0] * s[1])  # a thumbnail has a frame of its own
            return width, height
        with WebPImagePlugin.WebPImageFile(io.BytesIO(data)) as image:
            return image.size
    except Exception as error:  # noqa: BLE001 - Pillow raises whatever the file provokes
        raise ValueError(f"damaged header: {error}") from error


def _gif_pixels(data: bytes, max_pixels: int) -> tuple[int, str]:
    """Pixels that a GIF's decoder makes room for, and a description of them.

    The decoder keeps all frames, even if only one is wanted, and makes an image as wide as the
    widest and as high as the highest. (GIF89a, sections 18 to 27.)
    """
    max_blocks = 2**14 + max_pixels // 128  # a full block has 255 bytes
    at, blocks = 13 + _colour_table_bytes(data[10:11]), 0
    width, height, total, frames = 0, 0, 0, 0
    while max(total, width * height) <= max_pixels and data[at : at + 1] in (b"\x2c", b"\x21"):
        if data[at] == 0x2C:  # a frame: place, size, flags, colours, code size, sub-blocks
            w, h = struct.unpack("<HH", data[at + 5 : at + 9].ljust(4, b"\0"))
            width, height, total, frames = max(width, w), max(height, h), total + w * h, frames + 1
            at += 11 + _colour_table_bytes(data[at + 9 : at + 10])
        else:  # an extension: label, sub-blocks
            at += 2
        while blocks < max_blocks and at < len(data) and data[at]:
            at, blocks = at + 1 + data[at], blocks + 1
        at, blocks = at + 1, blocks + 1
        if blocks >= max_blocks:
            raise ValueError(f"more than {max_blocks} blocks")
    return max(total, width * height), f"{frames} frames of up to {width}×{height}"


def _colour_table_bytes(flags: bytes) -> int:
    """Bytes of the colour table that a GIF's flags announce."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0
