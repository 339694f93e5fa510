"""Headers of image files: what they say, and which files TensorFlow's own decoder shows right."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.pictures import (
    ALPHA,
    DEEP_FILES,
    HEIGHT,
    MANY_CHANNELS,
    MODES,
    PICTURE,
    RAMP,
    WIDTH,
    colour_key,
    encoded,
    gray_with_alpha,
    oriented,
    wide_profile,
)
from PIL import Image, ImageCms

from simsiam_tf.data.images.decode import decode
from simsiam_tf.data.images.header import ImageHeader, read_header
from simsiam_tf.data.images.render import PixelRule, render

W, H = WIDTH, HEIGHT
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RGBA = Image.fromarray(np.dstack([RAMP, ALPHA]))


def photograph(orientation=1, mode="RGB", **options):
    exif = oriented(orientation)
    exif[271] = "a maker"
    return encoded(PICTURE.convert(mode), "JPEG", exif=exif.tobytes(), **options)


HEADERS = {  # file → what its header says
    "JPEG": (lambda: encoded(PICTURE, "JPEG"), ImageHeader("JPEG", W, H, 3, plain=True)),
    "gray JPEG": (lambda: photograph(mode="L"), ImageHeader("JPEG", W, H, 1, plain=True)),
    "progressive JPEG": (lambda: photograph(progressive=True), ImageHeader("JPEG", W, H, 3, plain=True)),
    "JPEG with sRGB": (lambda: photograph(icc_profile=SRGB), ImageHeader("JPEG", W, H, 3, plain=True)),
    "JPEG on its side": (lambda: photograph(6), ImageHeader("JPEG", W, H, 3, orientation=6)),
    "JPEG with a wide profile": (
        lambda: photograph(icc_profile=wide_profile()), ImageHeader("JPEG", W, H, 3),
    ),
    "CMYK JPEG": (lambda: photograph(mode="CMYK"), ImageHeader("JPEG", W, H, 3)),
    "PNG": (lambda: encoded(PICTURE, "PNG"), ImageHeader("PNG", W, H, 3, plain=True)),
    "gray PNG": (
        lambda: encoded(PICTURE.convert("L"), "PNG"), ImageHeader("PNG", W, H, 1, plain=True),
    ),
    "1-bit PNG": (
        lambda: encoded(PICTURE.convert("1"), "PNG"), ImageHeader("PNG", W, H, 1, plain=True),
    ),
    "palette PNG": (
        lambda: encoded(MODES["P"], "PNG"), ImageHeader("PNG", W, H, 3, plain=True),
    ),
    "PNG with sRGB": (
        lambda: encoded(PICTURE, "PNG", icc_profile=SRGB),
        ImageHeader("PNG", W, H, 3, plain=True),
    ),
    "transparent PNG": (
        lambda: encoded(RGBA, "PNG"), ImageHeader("PNG", W, H, 3, transparent=True),
    ),
    "gray PNG with alpha": (
        lambda: gray_with_alpha()[0], ImageHeader("PNG", W, H, 1, transparent=True),
    ),
    "PNG with a colour key": (
        lambda: colour_key()[0], ImageHeader("PNG", W, H, 3, transparent=True),
    ),
    "PNG on its side": (
        lambda: encoded(PICTURE, "PNG", exif=oriented(8).tobytes()),
        ImageHeader("PNG", W, H, 3, orientation=8),
    ),
    "deep PNG": (DEEP_FILES["gray PNG"], ImageHeader("PNG", W, H, 1, 16)),
    "WebP": (lambda: encoded(PICTURE, "WEBP"), ImageHeader("WEBP", W, H, 3)),
    "transparent WebP": (
        lambda: encoded(RGBA, "WEBP"), ImageHeader("WEBP", W, H, 3, transparent=True),
    ),
    "GIF": (lambda: encoded(MODES["P"], "GIF"), ImageHeader("GIF", W, H, 3)),
    "BMP": (lambda: encoded(PICTURE, "BMP"), ImageHeader("BMP", W, H, 3)),
    "TIFF": (lambda: encoded(PICTURE, "TIFF"), ImageHeader("TIFF", W, H, 3)),
    "transparent TIFF": (
        lambda: encoded(RGBA, "TIFF"), ImageHeader("TIFF", W, H, 3, transparent=True),
    ),
    "TIFF on its side": (
        lambda: encoded(PICTURE, "TIFF", exif=oriented(5).tobytes()),
        ImageHeader("TIFF", W, H, 3, orientation=5),
    ),
    "deep TIFF": (DEEP_FILES["big-endian TIFF"], ImageHeader("TIFF", W, H, 1, 16)),
    "float TIFF": (DEEP_FILES["float TIFF"], ImageHeader("TIFF", W, H, 1, 32)),
    "TIFF of five channels": (MANY_CHANNELS["planes"], ImageHeader("TIFF", W, H, 5, 16)),
    ".npy": (MANY_CHANNELS[".npy"], ImageHeader("NPY", W, H, 5, 16)),
    "AVIF": (lambda: encoded(PICTURE, "AVIF"), ImageHeader("AVIF", W, H, 3)),
    "JPEG 2000": (DEEP_FILES["gray JPEG 2000"], ImageHeader("JPEG2000", W, H, 1, 16)),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADERS)
def test_what_headers_say(kind):
    make, expected = HEADERS[kind]
    assert read_header(make()) == expected


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [kind for kind, (_, header) in HEADERS.items() if header.plain])
def test_plain_files_are_what_tensorflow_decodes(kind, channels):
    data = HEADERS[kind][0]()
    ours = decode(tf.constant(data), PixelRule(channels)).numpy().astype(int)
    np.testing.assert_allclose(ours, render(data, PixelRule(channels)), atol=1 if channels == 1 else 0)


def test_orientations_that_are_no_numbers_of_exif():
    assert read_header(photograph(77)) == ImageHeader("JPEG", W, H, 3, plain=True)


def test_images_above_the_limit_are_refused():
    for kind in ("JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF", "AVIF", ".npy"):
        with pytest.raises(ValueError, match=f"{W}×{H} pixels, above max_megapixels=0.0007"):
            read_header(HEADERS[kind][0](), 7e-4)


def test_what_is_cut_off_in_its_header():
    for kind in HEADERS:
        with pytest.raises(ValueError):
            read_header(HEADERS[kind][0]()[:20])
