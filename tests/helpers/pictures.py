"""A picture in many kinds of files."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

HEIGHT, WIDTH = 24, 32
RAMP = np.stack(
    [
        np.add.outer(np.arange(HEIGHT) * 9, np.arange(WIDTH)),
        np.add.outer(np.arange(HEIGHT), np.arange(WIDTH) * 7),
        np.add.outer(np.arange(HEIGHT) * 3, np.arange(WIDTH) * 4),
    ],
    axis=-1,
).astype(np.uint8)
ALPHA = np.linspace(0, 255, HEIGHT * WIDTH).round().astype(np.uint8).reshape(HEIGHT, WIDTH)
PICTURE = Image.fromarray(RAMP)
DEEP = (np.linspace(0, 4095, HEIGHT * WIDTH).round()).astype(np.uint16).reshape(HEIGHT, WIDTH)


def encoded(image, image_format, **options):
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def decoded(data):
    return Image.open(io.BytesIO(data))


def on_background(colours, alpha, background):
    share = alpha[..., None] / 255.0
    return colours * share + np.array(background) * (1 - share)


def oriented(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def gray_with_alpha():
    gray = PICTURE.convert("L")
    image = Image.merge("LA", [gray, Image.fromarray(ALPHA)])
    return encoded(image, "PNG"), on_background(np.array(gray)[..., None], ALPHA, (255,) * 3)


def colour_key():
    data = encoded(PICTURE, "PNG", transparency=tuple(int(v) for v in RAMP[3, 5]))
    expected = RAMP.astype(float)
    expected[np.equal(RAMP, RAMP[3, 5]).all(axis=-1)] = 255
    return data, expected


MODES = {
    "1": PICTURE.convert("1"), "L": PICTURE.convert("L"), "P": PICTURE.quantize(32),
    "RGB": PICTURE, "CMYK": PICTURE.convert("CMYK"), "YCbCr": PICTURE.convert("YCbCr"),
}  # fmt: skip


def wide_profile():
    """An ICC profile with ProPhoto's primaries and a gamma of 1.8."""

    def fixed(*values):
        return b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    def xyz(*values):
        return b"XYZ \0\0\0\0" + fixed(*values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(1.8 * 256)) + b"\0\0"
    tags = {
        b"rXYZ": xyz(0.7977, 0.2880, 0), b"gXYZ": xyz(0.1352, 0.7119, 0), b"bXYZ": xyz(0.0313, 1e-4, 0.8249),
        b"wtpt": xyz(0.9642, 1, 0.8249), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve,
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 6) + b"wide \0" + bytes(81),
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
    }  # fmt: skip
    start, table, content = 132 + 12 * len(tags), b"", b""
    for tag, value in tags.items():
        table += tag + struct.pack(">II", start + len(content), len(value))
        content += value
    header = struct.pack(">I", start + len(content)) + b"lcms\x02\x40\0\0mntrRGB XYZ "
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed(0.9642, 1, 0.8249)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + content


def tiff(values, **options):
    file = io.BytesIO()
    pytest.importorskip("tifffile").imwrite(file, values, **options)
    return file.getvalue()


def png16(values):
    return tf.io.encode_png(values).numpy()


DEEP_FILES = {  # the same values in different files
    "gray PNG": lambda: encoded(Image.fromarray(DEEP), "PNG"),
    "RGB PNG": lambda: png16(np.dstack([DEEP] * 3)),
    "gray TIFF": lambda: tiff(DEEP),
    "big-endian TIFF": lambda: tiff(DEEP, byteorder=">"),
    "BigTIFF": lambda: tiff(DEEP, bigtiff=True),
    "RGB TIFF": lambda: tiff(np.dstack([DEEP] * 3), photometric="rgb"),
    "planar RGB TIFF": lambda: tiff(np.stack([DEEP] * 3), photometric="rgb", planarconfig="separate"),
    "float TIFF": lambda: tiff(DEEP.astype(np.float32)),
    "double TIFF": lambda: tiff(DEEP.astype(np.float64)),
    "int32 TIFF": lambda: tiff(DEEP.astype(np.int32)),
    "compressed TIFF": lambda: tiff(DEEP, compression="zlib"),
    "gray JPEG 2000": lambda: encoded(Image.fromarray(DEEP), "JPEG2000"),
}


CHANNELS = np.stack([DEEP + 10 * i for i in range(5)], axis=-1).astype(np.uint16)


def saved(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


MANY_CHANNELS = {
    ".npy": lambda: saved(CHANNELS),
    "pages": lambda: tiff(np.moveaxis(CHANNELS, -1, 0), photometric="minisblack"),
    "interleaved": lambda: tiff(CHANNELS, photometric="minisblack", planarconfig="contig"),
    "planes": lambda: tiff(np.moveaxis(CHANNELS, -1, 0), photometric="minisblack", planarconfig="separate"),
    "OME": lambda: tiff(np.moveaxis(CHANNELS, -1, 0), ome=True, metadata={"axes": "CYX"}),
    "ImageJ": lambda: tiff(np.moveaxis(CHANNELS, -1, 0), imagej=True, metadata={"axes": "CYX"}),
}
