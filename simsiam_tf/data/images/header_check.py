"""The check of an image file before a pixel of it is decoded.

A file of kilobytes can make its decoder take gigabytes or hours, and a file named .jpg can be a pipe that
never ends. So the file's type is checked first, then its segments are counted, then Pillow reads the size
from its header. Only a file that passes is decoded.
"""

from __future__ import annotations

import io
import os
import re
import stat

from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

MEGAPIXELS = 100.0  # few cameras have more
MAX_SEGMENTS = 2**14  # of a file, besides those that hold pixels
MAX_JUNK = 2**16  # bytes of a JPEG's header that belong to no segment
MAX_SCANS = 100  # of a JPEG: its decoder passes over all pixels once for each; encoders write about ten
MAX_TEXTS = 16  # compressed texts and profiles of a PNG: its decoder expands each to as much as 8 MB

_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # neither an escaped 0xFF nor a restart
_MAGIC = {  # the first bytes by which TensorFlow's decoder tells formats apart
    "JPEG": rb"\xff\xd8\xff", "PNG": rb"\x89PNG\r\n\x1a\n", "GIF": rb"GIF8", "BMP": rb"BM",
    "WebP": rb"RIFF....WEBP",
}  # fmt: skip
_READERS = {
    "JPEG": JpegImagePlugin.JpegImageFile, "PNG": PngImagePlugin.PngImageFile,
    "BMP": BmpImagePlugin.BmpImageFile, "WebP": WebPImagePlugin.WebPImageFile,
}  # fmt: skip


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
    if not stat.S_ISREG(os.stat(path).st_mode):  # NOTE: opening a device can have an effect
        raise ValueError("not a regular file")
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        magic = file.read(12)
        if not magic:
            raise ValueError("empty file")
        matches = (name for name, first in _MAGIC.items() if re.match(first, magic, re.DOTALL))
        image_format = next(matches, None)
        if image_format is None:
            raise ValueError("not a JPEG, PNG, WebP, BMP or GIF")
        file.seek(0)
        data = b"" if status.st_size > limit else file.read(limit + 1)
    if not 0 < len(data) <= limit:
        raise ValueError(f"above {limit} bytes, the most that max_megapixels={max_megapixels:g} allows")
    if image_format == "GIF":
        pixels, shape = _gif_pixels(data, max_pixels)
    else:
        if image_format == "PNG":
            _check_png(data, max_pixels)
        elif image_format == "JPEG":
            _check_jpeg(data)
        width, height = _header_size(image_format, data)
        pixels, shape = width * height, f"{width}×{height}"
    if pixels > max_pixels:
        raise ValueError(f"{shape} pixels, above max_megapixels={max_megapixels:g}")
    return data


def _header_size(image_format: str, data: bytes) -> tuple[int, int]:
    # NOTE: not Image.open, whose own limit warns or raises by a setting of the process.
    try:
        with _READERS[image_format](io.BytesIO(data)) as image:
            return image.size
    except Exception as error:  # noqa: BLE001 - Pillow raises whatever the file provokes
        raise ValueError(f"damaged header: {error}") from error


def _check_png(data: bytes, max_pixels: int) -> None:
    """Counts chunks (length, type, content, checksum). Pillow reads those before the pixels alone."""
    at, texts, max_chunks = 8, 0, MAX_SEGMENTS + max_pixels // 1024  # encoders fill chunks of 8 KiB and more
    for _ in range(max_chunks):
        chunk = data[at + 4 : at + 8]
        if chunk in (b"IEND", b""):
            return
        if chunk == b"iTXt":  # keyword, 0, whether it is compressed
            texts += data[data.find(b"\0", at + 8, at + 88) + 1] != 0
        texts += chunk in (b"zTXt", b"iCCP")
        if texts > MAX_TEXTS:
            raise ValueError(f"more than {MAX_TEXTS} compressed texts")
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    raise ValueError(f"more than {max_chunks} chunks")


def _check_jpeg(data: bytes) -> None:
    """Counts segments and scans up to the end of the image."""
    at, scans, junk = 2, 0, 0
    for _ in range(MAX_SEGMENTS):
        marker = _JPEG_MARKER.search(data, at)
        if marker is None or marker[1] == b"\xd9":
            return
        junk += 0 if scans else marker.start() - at
        if junk > MAX_JUNK:
            raise ValueError(f"more than {MAX_JUNK} bytes of nothing in its header")
        scans += marker[1] == b"\xda"
        if scans > MAX_SCANS:
            raise ValueError(f"more than {MAX_SCANS} scans")
        at = marker.end()
        if marker[1] > b"\xbf" and marker[1] != b"\xd8":  # a segment that begins with its length
            at += int.from_bytes(data[at : at + 2], "big")
    raise ValueError(f"more than {MAX_SEGMENTS} segments")


def _gif_pixels(data: bytes, max_pixels: int) -> tuple[int, str]:
    """Pixels that a GIF's decoder makes room for, and a description of them.

    It keeps all frames, also of an animation of which one is wanted, and makes an image as wide as
    the widest and as high as the highest. (GIF89a, sections 18 to 27.)
    """
    max_blocks = MAX_SEGMENTS + max_pixels // 128  # a full block has 255 bytes
    at, blocks = 13 + _colour_table_bytes(data[10:11]), 0
    width, height, total, frames = 0, 0, 0, 0
    while blocks < max_blocks and max(total, width * height) <= max_pixels:
        introducer = data[at : at + 1]
        if introducer == b"\x2c":  # a frame: place, size, flags, colours, code size, sub-blocks
            w, h = (int.from_bytes(data[at + i : at + i + 2], "little") for i in (5, 7))
            width, height, total, frames = max(width, w), max(height, h), total + w * h, frames + 1
            at += 11 + _colour_table_bytes(data[at + 9 : at + 10])
        elif introducer == b"\x21":  # an extension: label, sub-blocks
            at += 2
        else:  # the end
            break
        while blocks < max_blocks and at < len(data) and data[at]:
            at, blocks = at + 1 + data[at], blocks + 1
        at, blocks = at + 1, blocks + 1
    if blocks >= max_blocks:
        raise ValueError(f"more than {max_blocks} blocks")
    return max(total, width * height), f"{frames} frames of up to {width}×{height}"


def _colour_table_bytes(flags: bytes) -> int:
    """Bytes of the colour table that a GIF's flags announce."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0
