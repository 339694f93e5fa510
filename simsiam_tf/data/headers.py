"""What an encoded image says of itself, before a pixel of it is decoded.

A file of a megabyte can claim pixels for gigabytes; a file named .jpg can be a pipe that never
ends, or a device. Nothing of that is read further than its header.
"""

from __future__ import annotations

import io
import os
import stat
import threading
import warnings

from PIL import Image, UnidentifiedImageError

MEGAPIXELS = 100.0  # the largest cameras have 150, most below 60
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
_one_at_a_time = threading.Lock()


def read_checked(path: bytes | str, max_megapixels: float = MEGAPIXELS) -> bytes:
    """The bytes of an image file whose header is in order.

    Raises:
        OSError: missing, a link that leads nowhere or to itself, not permitted.
        ValueError: saying in a few words what else is wrong.
    """
    most = int(max_megapixels * 1e6)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not hold us
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("no regular file")
        if not status.st_size:
            raise ValueError("empty file")
        limit = 4 * most + 2**16  # an image of that many pixels without compression
        if status.st_size > limit:
            raise ValueError(f"{status.st_size} bytes, more than --max_megapixels={max_megapixels:g} needs")
        data = file.read(limit + 1)
    width, height = _size(data)
    if width * height > most:
        raise ValueError(f"{width}×{height} pixels, above --max_megapixels={max_megapixels:g}")
    if data[:3] == b"GIF" and gif_pixels(data, most) > most:
        raise ValueError(f"an animation with more pixels than --max_megapixels={max_megapixels:g}")
    return data


def _size(data: bytes) -> tuple[int, int]:
    """Width and height that the header claims."""
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own limits are not ours
        own, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return image.size
        except UnidentifiedImageError as error:
            raise ValueError("no image of a known format") from error
        except (OSError, SyntaxError, EOFError, KeyError, IndexError, TypeError, MemoryError) as error:
            raise ValueError(f"damaged header: {error}") from error
        finally:
            Image.MAX_IMAGE_PIXELS = own


def gif_pixels(data: bytes, most: int) -> int:
    """Pixels of all frames of a GIF, which its decoder expands at once; counts a little beyond `most`.

    Walks from block to block of the file (GIF89a, sections 18 to 27).
    """
    at, pixels = 13 + _colours(data[10]), 0
    while at < len(data) and pixels <= most:
        kind = data[at]
        if kind == 0x2C and at + 10 <= len(data):  # a frame: place, size, flags, colours, code size
            pixels += int.from_bytes(data[at + 5 : at + 7], "little") * int.from_bytes(
                data[at + 7 : at + 9], "little"
            )
            at += 10 + _colours(data[at + 9]) + 1
        elif kind == 0x21:  # an extension: label
            at += 2
        else:  # the end, or something else
            break
        while at < len(data) and data[at]:  # sub-blocks
            at += 1 + data[at]
        at += 1
    return pixels


def _colours(flags: int) -> int:
    """Bytes of the colour table that a GIF's flags announce."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
