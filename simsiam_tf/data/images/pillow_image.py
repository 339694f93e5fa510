"""Image files as Pillow's images, not yet decoded, and the tags of TIFF files."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any

from PIL import Image, TiffImagePlugin

from simsiam_tf.data.images.formats import import_library

ORIENTATION, BITS_PER_SAMPLE, ICC_PROFILE = 274, 258, 34675  # tags of TIFF; the first also of EXIF


def pillow_image(data: bytes, name: str) -> Image.Image:
    """Pillow's image of a file, not yet decoded. name: its format, as from `image_format`."""
    _register_plugin(name)
    # NOTE: not Image.open, whose own limit of pixels warns or raises by a setting of the process.
    factory: Callable[..., Image.Image] = Image.OPEN[name][0]
    return factory(io.BytesIO(data), "")


@functools.cache
def _register_plugin(name: str) -> None:
    Image.init()
    if name == "HEIF":
        import_library(name).register_heif_opener()
    elif name == "JXL":
        import_library(name)  # which registers itself


def tiff_tags(data: bytes) -> Any:
    """The tags of a TIFF's first image, number → value."""
    big = data[2:3] == b"\x2b" or data[3:4] == b"\x2b"
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if big else 8])
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    return tags
