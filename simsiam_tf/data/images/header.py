"""Headers of image files, read before any pixel is decoded."""

from __future__ import annotations

import dataclasses
import io
import struct

import numpy as np

from simsiam_tf.data.images.formats import image_format, import_library, needs_library
from simsiam_tf.data.images.header_check import check_segments
from simsiam_tf.data.images.pillow_image import ORIENTATION, pillow_image, tiff_tags
from simsiam_tf.data.images.render import is_srgb
from simsiam_tf.runtime.display_text import counted

MEGAPIXELS = 100.0  # of the largest image, by default; few cameras have more
MAX_BYTES = 64  # the most of a pixel, with all its channels
_DEEP_SUFFIXES = (".tif", ".tiff", ".npy")


@dataclasses.dataclass(frozen=True)
class ImageHeader:
    """What the header of an image file says.

    format: as `image_format`. width, height: pixels before the orientation is applied. channels: 1 for gray,
    3 for colours, else their number; transparency is no channel. bits: of a channel. orientation: 1 to 8, as
    EXIF has it. transparent: whether pixels may be transparent. plain: whether TensorFlow's decoders of JPEG
    and PNG, which are faster than `render`, show the image as `render` does.
    """

    format: str
    width: int
    height: int
    channels: int
    bits: int = 8
    orientation: int = 1
    transparent: bool = False
    plain: bool = False


def read_header(data: bytes, max_megapixels: float = MEGAPIXELS) -> ImageHeader:
    """The header of an image file that is safe to decode.

    Decoding it takes at most 12 bytes of memory for each pixel of `max_megapixels`, besides the file itself,
    if it has no more than three channels of 8 bits; most images take 3.

    Raises:
        ValueError: no image, damaged, too large, or of a format whose library is missing
            (`UnavailableFormat`); the message says which in a few words.
    """
    name = image_format(data)
    max_pixels = int(max_megapixels * 1e6)
    check_segments(data, name, max_pixels)
    try:
        header = {"PNG": _png, "TIFF": _tiff, "NPY": _npy}.get(name, _by_pillow)(data, name)
    except ValueError:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow raises whatever the file provokes
        raise ValueError(f"damaged header: {error}") from error
    if needs_library(header.format, header.bits, header.channels):
        import_library(header.format)
    pixels, shape = header.width * header.height, f"{header.width}×{header.height}"
    if pixels > max_pixels:
        raise ValueError(f"{shape} pixels, above max_megapixels={max_megapixels:g}")
    if pixels * header.channels * header.bits > 8 * MAX_BYTES * max_pixels:
        raise ValueError(f"{shape} pixels of {counted(header.channels, 'channel')}, too many together")
    return header


def check_size(size: int, name: str, max_megapixels: float = MEGAPIXELS) -> None:
    """Raises ValueError where a file has more bytes than `max_megapixels` without compression.

    size: bytes of the file. name: its name, whose suffix says whether `MAX_BYTES` or 4 make a pixel.
    """
    bytes_a_pixel = MAX_BYTES if name.lower().endswith(_DEEP_SUFFIXES) else 4
    limit = bytes_a_pixel * int(max_megapixels * 1e6) + 2**16
    if size > limit:
        raise ValueError(f"above {limit} bytes, the most that max_megapixels={max_megapixels:g} allows")


def _by_pillow(data: bytes, name: str) -> ImageHeader:
    with pillow_image(data, name) as image:  # not decoded
        mode, size, transparent = image.mode, image.size, image.has_transparency_data
        turned = image.getexif().get(ORIENTATION, 1) if name in ("JPEG", "WEBP", "AVIF") else 1
        srgb = is_srgb(image.info.get("icc_profile"))
    orientation = turned if turned in range(1, 9) else 1
    return ImageHeader(
        name, *size, 1 if mode in ("1", "L", "LA", "F") or mode[0] == "I" else 3, 16 if mode[0] == "I" else 8,
        orientation, transparent, name == "JPEG" and mode in ("L", "RGB") and orientation == 1 and srgb,
    )  # fmt: skip


def _png(data: bytes, name: str) -> ImageHeader:
    width, height, bits, colours = struct.unpack(">IIBB", data[16:26])  # IHDR, by libpng always first
    orientation, srgb = 1, True
    if b"eXIf" in data or b"iCCP" in data:
        with pillow_image(data, name) as image:
            srgb = is_srgb(image.info.get("icc_profile"))
            orientation = image.getexif().get(ORIENTATION, 1) if "exif" in image.info else 1
    transparent = colours in (4, 6) or b"tRNS" in data
    plain = bits <= 8 and not transparent and b"eXIf" not in data and srgb
    channels = 1 if colours in (0, 4) else 3
    return ImageHeader(name, width, height, channels, max(bits, 8), orientation, transparent, plain)


def _tiff(data: bytes, name: str) -> ImageHeader:
    tags = tiff_tags(data)
    samples, extra, photometric = tags.get(277, 1), tags.get(338, ()), tags.get(262, 1)
    transparent = extra in ((1,), (2,))
    colours = samples - transparent
    channels = 1 if colours == 1 and photometric != 3 else 3
    if colours > (4 if photometric == 5 else 3) or colours == 2:
        channels = samples
    bits, orientation = max(8, *tags.get(258, (1,))), tags.get(ORIENTATION, 1)
    if not all(isinstance(n, int) and n > 0 for n in (tags[256], tags[257], channels, bits)):
        raise ValueError("damaged header")
    orientation = orientation if orientation in range(1, 9) else 1
    return ImageHeader(name, tags[256], tags[257], channels, bits, orientation, transparent)


def _npy(data: bytes, name: str) -> ImageHeader:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if len(shape) not in (2, 3):
        raise ValueError(f"an array of shape {shape} in the place of [height, width, channels]")
    height, width, channels = (*shape, 1)[:3]
    return ImageHeader(name, width, height, channels, 8 * dtype.itemsize)
