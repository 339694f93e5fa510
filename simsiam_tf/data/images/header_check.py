"""What an encoded image asks of its decoder, before a pixel of it is decoded.

A file of kilobytes can ask for gigabytes or for hours, and a file named .jpg can be a pipe that never
ends. So first it is made sure that it is a file, then its pieces are counted, then Pillow reads the
size from its header. Only what passes is decoded.
"""

from __future__ import annotations

import io
import os
import re
import stat

from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

MEGAPIXELS = 100.0  # few cameras have more
FEW = 2**14  # pieces that a file may have, besides those that hold pixels
JUNK = 2**16  # bytes of a JPEG's header that belong to nothing
SCANS = 100  # of a JPEG: its decoder passes over all pixels once for each; encoders write about ten
TEXTS = 16  # compressed texts and profiles of a PNG: its decoder expands each to as much as 8 MB

_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # of a JPEG: neither an escaped 0xFF nor a restart


def read_checked(path: bytes | str, max_megapixels: float = MEGAPIXELS) -> bytes:
    """The bytes of an image file that its decoder may be given.

    To decode what is returned takes at most 12 bytes for each pixel of `max_megapixels`, besides the
    file itself; most images take 3.

    Raises:
        OSError: missing, a link that leads nowhere or to itself, not permitted.
        ValueError: saying in a few words what else is wrong.
    """
    most = int(max_megapixels * 1e6)
    limit = 4 * most + 2**16  # bytes of an image of that many pixels without compression
    if not stat.S_ISREG(os.stat(path).st_mode):  # to open a device may be an act of its own
        raise ValueError("no regular file")
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("no regular file")
        magic = file.read(12)
        if not magic:
            raise ValueError("empty file")
        kind = next((k for k, known in _KINDS.items() if known(magic)), None)
        if kind is None:
            raise ValueError("no JPEG, PNG, WebP, BMP or GIF")
        file.seek(0)
        data = b"" if status.st_size > limit else file.read(limit + 1)
    if not 0 < len(data) <= limit:
        raise ValueError(f"above {limit} bytes, the most that max_megapixels={max_megapixels:g} allows")
    if kind == "GIF":
        asked, shape = _gif(data, most)
    else:
        if kind == "PNG":
            _png(data, most)
        elif kind == "JPEG":
            _jpeg(data)
        width, height = _size(kind, data)
        asked, shape = width * height, f"{width}×{height}"
    if asked > most:
        raise ValueError(f"{shape} pixels, above max_megapixels={max_megapixels:g}")
    return data


_KINDS = {  # as TensorFlow's decoder tells them apart
    "JPEG": lambda magic: magic.startswith(b"\xff\xd8\xff"),
    "PNG": lambda magic: magic.startswith(b"\x89PNG\r\n\x1a\n"),
    "GIF": lambda magic: magic.startswith(b"GIF8"),
    "BMP": lambda magic: magic.startswith(b"BM"),
    "WebP": lambda magic: magic.startswith(b"RIFF") and magic.endswith(b"WEBP"),
}
_READERS = {
    "JPEG": JpegImagePlugin.JpegImageFile, "PNG": PngImagePlugin.PngImageFile,
    "BMP": BmpImagePlugin.BmpImageFile, "WebP": WebPImagePlugin.WebPImageFile,
}  # fmt: skip


def _size(kind: str, data: bytes) -> tuple[int, int]:
    """Width and height, from the header."""
    # NOTE: not Image.open, whose own limit warns or raises by a setting of the whole process.
    try:
        with _READERS[kind](io.BytesIO(data)) as image:
            return image.size
    except Exception as error:  # noqa: BLE001 - Pillow raises whatever the file provokes
        raise ValueError(f"damaged header: {error}") from error


def _png(data: bytes, most: int) -> None:
    """Counts chunks: length, kind, content, checksum. Pillow reads those before the pixels only."""
    at, texts, pieces = 8, 0, FEW + most // 1024  # encoders fill chunks of 8 KiB and more
    for _ in range(pieces):
        kind = data[at + 4 : at + 8]
        if kind in (b"zTXt", b"iCCP"):
            texts += 1
        elif kind == b"iTXt":  # keyword, 0, whether it is compressed
            texts += data[data.find(b"\0", at + 8, at + 88) + 1] != 0
        elif kind in (b"IEND", b""):
            return
        if texts > TEXTS:
            raise ValueError(f"more than {TEXTS} compressed texts")
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    raise ValueError(f"more than {pieces} chunks")


def _jpeg(data: bytes) -> None:
    """Counts segments and scans up to the end of the image."""
    at, scans, between = 2, 0, 0
    for _ in range(FEW):
        marker = _MARKER.search(data, at)
        if marker is None or marker[1] == b"\xd9":
            return
        between += 0 if scans else marker.start() - at
        if between > JUNK:
            raise ValueError(f"more than {JUNK} bytes of nothing in its header")
        scans += marker[1] == b"\xda"
        if scans > SCANS:
            raise ValueError(f"more than {SCANS} scans")
        at = marker.end()
        if marker[1] > b"\xbf" and marker[1] != b"\xd8":  # these say how long they are
            at += int.from_bytes(data[at : at + 2], "big")
    raise ValueError(f"more than {FEW} segments")


def _gif(data: bytes, most: int) -> tuple[int, str]:
    """Pixels that the decoder makes room for, and how they come about.

    It keeps all frames, also of an animation of which one is wanted, and makes an image as wide as
    the widest and as high as the highest. (GIF89a, sections 18 to 27.)
    """
    at, pieces = 13 + _colours(data[10:11]), FEW + most // 128  # of at most 255 bytes, if full
    left = pieces
    width, height, total, frames = 0, 0, 0, 0
    while left > 0 and max(total, width * height) <= most:
        kind = data[at : at + 1]
        if kind == b"\x2c":  # a frame: place, size, flags, colours, code size, sub-blocks
            w, h = (int.from_bytes(data[at + i : at + i + 2], "little") for i in (5, 7))
            width, height, total, frames = max(width, w), max(height, h), total + w * h, frames + 1
            at += 11 + _colours(data[at + 9 : at + 10])
        elif kind == b"\x21":  # an extension: label, sub-blocks
            at += 2
        else:  # the end
            break
        while left > 0 and at < len(data) and data[at]:
            at, left = at + 1 + data[at], left - 1
        at, left = at + 1, left - 1
    if left <= 0:
        raise ValueError(f"more than {pieces} blocks")
    return max(total, width * height), f"{frames} frames of up to {width}×{height}"


def _colours(flags: bytes) -> int:
    """Bytes of the table of colours that a GIF's flags announce."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0
