"""Encoded images are as a person sees them: compared with Pillow's rendering or the formula, kind by kind."""

import io
import struct

import numpy as np
import pytest
from helpers.pictures import (
    ALPHA,
    HEIGHT,
    MODES,
    PICTURE,
    RAMP,
    WIDTH,
    colour_key,
    decoded,
    encoded,
    gray_with_alpha,
    on_background,
    oriented,
    wide_profile,
)
from PIL import Image, ImageCms, ImageOps

from simsiam_tf.data.images.render import PixelRule, is_srgb, render

TURNED = {  # what a person sees of an image whose orientation is the key, worked out by hand
    1: RAMP, 2: RAMP[:, ::-1], 3: RAMP[::-1, ::-1], 4: RAMP[::-1], 5: RAMP.swapaxes(0, 1),
    6: np.rot90(RAMP, -1), 7: RAMP[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(RAMP),
}  # fmt: skip


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "WEBP"])
def test_orientation_of_lossless_files(image_format, orientation, check):
    options = {"lossless": True, "exact": True} if image_format == "WEBP" else {}
    data = encoded(PICTURE, image_format, exif=oriented(orientation).tobytes(), **options)
    check("turned by hand", render(data), TURNED[orientation])


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("image_format", ["JPEG", "AVIF", "HEIF"])
def test_orientation_of_lossy_files(image_format, orientation, check):
    if image_format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    data = encoded(PICTURE, image_format, exif=oriented(orientation).tobytes(), quality=100)
    seen = render(data)
    check("Pillow's exif_transpose", seen, np.array(ImageOps.exif_transpose(decoded(data))))
    assert np.abs(seen.astype(int) - TURNED[orientation]).mean() < 3  # of 8 that differ by far more


BACKGROUNDS = {"white": (255, 255, 255), "black": (0, 0, 0), "#2040c0": (32, 64, 192)}


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF", "AVIF", "HEIF", "JXL"])
def test_transparency_shows_the_background(image_format, background, check):
    module = {"HEIF": "pillow_heif", "JXL": "pillow_jxl"}.get(image_format)
    if module:
        pytest.importorskip(module)
        if module == "pillow_heif":
            pytest.importorskip(module).register_heif_opener()
    image = Image.fromarray(np.dstack([RAMP, ALPHA]))
    options = {"WEBP": {"lossless": True, "exact": True}, "JXL": {"lossless": True}}.get(image_format, {})
    data = encoded(image, image_format, **options)
    layers = np.array(decoded(data).convert("RGBA")).astype(float)
    expected = on_background(layers[..., :3], layers[..., 3], BACKGROUNDS[background])
    check("formula of compositing", render(data, PixelRule(background=background)), expected, most=1)


def test_invisible_colours_do_not_show():
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(2):
        hidden = np.where(ALPHA[..., None] > 128, RAMP, rng.integers(0, 255, RAMP.shape)).astype(np.uint8)
        image = Image.fromarray(np.dstack([hidden, np.where(ALPHA > 128, 255, 0).astype(np.uint8)]))
        pictures.append(render(encoded(image, "PNG")))
    np.testing.assert_array_equal(*pictures)


def palette_with_transparency():
    image = PICTURE.quantize(8)
    data = encoded(image, "PNG", transparency=bytes([0, 128, *[255] * 6]))
    index = np.array(image)
    colours = np.array(image.convert("RGB")).astype(float)
    return data, on_background(colours, np.choose(np.minimum(index, 2), [0, 128, 255]), (255,) * 3)


def gif_with_a_small_first_frame():
    """A GIF of 32×24 whose one frame of 12×10 lies at (4, 2); around it nothing is painted."""
    frame = PICTURE.crop((0, 0, 12, 10)).quantize(16)
    data = bytearray(encoded(frame, "GIF"))
    data[6:10] = struct.pack("<HH", WIDTH, HEIGHT)
    at = data.index(b"\x2c", 13 + 3 * 16)
    data[at + 1 : at + 5] = struct.pack("<HH", 4, 2)
    return bytes(data), np.array(decoded(bytes(data)).convert("RGB")).astype(float)


TRANSPARENT = {f.__name__: f for f in (gray_with_alpha, palette_with_transparency, colour_key)}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_transparency_without_an_alpha_channel_of_colours(kind, check):
    data, expected = TRANSPARENT[kind]()
    check("formula of compositing", render(data), expected, most=1)


def test_gif_frames_lie_on_their_canvas():
    data, _ = gif_with_a_small_first_frame()
    seen = render(data)
    assert seen.shape == (HEIGHT, WIDTH, 3)
    frame = PICTURE.crop((0, 0, 12, 10)).quantize(16).convert("RGB")
    np.testing.assert_array_equal(seen[2:12, 4:16], np.array(frame))


def animations():
    frames = [PICTURE, PICTURE.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    for image_format, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        yield encoded(frames[0], image_format, save_all=True, append_images=frames[1:], **options)


def test_an_animation_is_its_first_frame():
    for data in animations():
        np.testing.assert_array_equal(render(data), np.array(decoded(data).convert("RGB")))


WRITABLE = [
    ("PNG", "1"), ("PNG", "L"), ("PNG", "P"), ("PNG", "RGB"), ("BMP", "1"), ("BMP", "L"), ("BMP", "P"),
    ("BMP", "RGB"), ("TIFF", "1"), ("TIFF", "L"), ("TIFF", "P"), ("TIFF", "RGB"), ("TIFF", "CMYK"),
    ("TIFF", "YCbCr"), ("JPEG", "L"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("GIF", "P"), ("GIF", "L"),
    ("WEBP", "RGB"), ("JPEG2000", "RGB"), ("JPEG2000", "L"), ("AVIF", "RGB"),
]  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("image_format", "mode"), WRITABLE)
def test_modes_are_as_pillow_renders_them(image_format, mode, channels, check):
    data = encoded(MODES[mode], image_format)
    expected = np.array(decoded(data).convert("RGB").convert("L" if channels == 1 else "RGB"))
    seen = render(data, PixelRule(channels))
    assert seen.dtype == np.uint8 and seen.shape == (HEIGHT, WIDTH, channels)
    check("Pillow's convert", seen.squeeze(), expected, most=1 if channels == 1 else 0)


def test_cmyk_inks_are_told_from_their_inversion():
    """Adobe writes CMYK inverted; both files show the same colours."""
    for image_format in ("JPEG", "TIFF"):
        red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
        assert np.abs(render(encoded(red, image_format)) - np.array([255, 0, 0])).max() < 8


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_colours_of_a_profile_become_srgb(image_format, check):
    profile = wide_profile()
    data = encoded(PICTURE, image_format, icc_profile=profile)
    source, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    plain = decoded(data).convert("RGB")
    check("Pillow's profileToProfile", render(data), np.array(ImageCms.profileToProfile(plain, source, srgb)))
    assert np.abs(render(data).astype(int) - np.array(plain)).mean() > 5
    assert not is_srgb(profile)


def test_profiles_that_change_nothing():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert is_srgb(srgb) and is_srgb(None)
    np.testing.assert_array_equal(render(encoded(PICTURE, "PNG", icc_profile=srgb)), RAMP)
    np.testing.assert_array_equal(render(encoded(PICTURE, "PNG", icc_profile=b"no profile")), RAMP)
    gray = PICTURE.convert("L")  # an RGB profile in a gray image, as some programs write
    np.testing.assert_array_equal(
        render(encoded(gray, "PNG", icc_profile=srgb), PixelRule(1))[..., 0], np.array(gray)
    )


OTHER_FILES = {
    b"": "empty file", b"\0" * 100: "only zeros", b"<!DOCTYPE html><html>": "an HTML page",
    b"%PDF-1.7 ...": "a PDF", b"PK\3\4": "a ZIP archive", b"hello": "not an image",
    b"version https://git-lfs.github.com/spec/v1": "a Git LFS pointer",
}  # fmt: skip


@pytest.mark.parametrize("data", OTHER_FILES)
def test_files_that_are_no_images_are_named(data):
    with pytest.raises(ValueError, match=OTHER_FILES[data]):
        render(data)


def test_files_that_are_cut_off_are_refused():
    for image_format in ("PNG", "JPEG", "TIFF", "WEBP", "GIF"):
        data = encoded(PICTURE, image_format)
        with pytest.raises(ValueError):
            render(data[: len(data) // 2])
