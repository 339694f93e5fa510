"""Encoded bytes → pixels as a person sees the picture: upright, on a background, in sRGB, of 8 bits."""

from __future__ import annotations

import dataclasses
import functools
import io
from typing import Any, cast

import numpy as np
from PIL import Image, ImageCms, ImageColor, ImageOps

from simsiam_tf.config.images import check_range
from simsiam_tf.data.images.deep_pixels import all_channels, deep_pixels, orientation_and_profile, to_8_bits
from simsiam_tf.data.images.formats import image_format
from simsiam_tf.data.images.pillow_image import ORIENTATION, pillow_image

SRGB_ERROR = 2  # levels by which a profile may differ from sRGB and still count as it


@dataclasses.dataclass(frozen=True)
class PixelRule:
    """How encoded images become pixels.

    channels: 1: gray; 3: colours; another number: of TIFF and .npy images that all have so many.
    background: the colour that transparent pixels are laid on, as Pillow reads it: "white", "#rrggbb".
    pixel_range: the values of deep pixels (more than 8 bits) that become 0 and 255; None: the smallest and
        largest value of their type, 0 and 1 for floating point.
    least_side: a JPEG is decoded at a half, a quarter or an eighth of its size, the smallest of these whose
        shorter side is at least so many pixels; 0: at its size. A digest of images does not depend on it.
    """

    channels: int = 3
    background: str = "white"
    pixel_range: tuple[float, float] | None = None
    least_side: int = dataclasses.field(default=0, repr=False)

    @classmethod
    def from_options(cls, channels: int, background: str = "white", pixel_range: str = "type") -> PixelRule:
        """The rule that options of `data.open_source` give. "auto" counts as "type": it needs a sample."""
        given = pixel_range not in ("auto", "type")
        return cls(channels, background, check_range(pixel_range) if given else None)

    def options(self) -> dict[str, str]:
        """The arguments of `from_options` that, besides `channels`, give this rule."""
        low_high = self.pixel_range and ",".join(f"{value:.17g}" for value in self.pixel_range)
        return {"background": self.background, **({"pixel_range": low_high} if low_high else {})}

    def blank_image(self) -> bytes:
        """An encoded image of one black pixel."""
        file = io.BytesIO()
        if self.channels in (1, 3):
            Image.new("L" if self.channels == 1 else "RGB", (1, 1)).save(file, "PNG")
        else:
            np.save(file, np.zeros([1, 1, self.channels], np.uint8))
        return file.getvalue()


COLOURS = PixelRule()


def render(data: bytes, rule: PixelRule = COLOURS) -> np.ndarray:
    """The pixels of an encoded image: uint8 [H, W, rule.channels].

    The first frame of an animation on its canvas; turned as its orientation says; colours of an embedded
    profile in sRGB; transparent pixels on the background. What Pillow can decode is as Pillow decodes it.
    With other channels than 1 and 3, the values of a TIFF or .npy image, upright and of 8 bits.

    Raises:
        ValueError: the bytes do not decode, or they have not the rule's channels; gray becomes colours
            and colours gray.
    """
    name = image_format(data)
    try:
        if rule.channels not in (1, 3):
            return to_8_bits(all_channels(data, name, rule.channels), rule.pixel_range)
        return _as_seen(_open_image(data, name, rule), name, rule)
    except ValueError:
        raise
    except Exception as error:  # noqa: BLE001 - libraries raise whatever the file provokes
        raise ValueError(_reason(error)) from error


def opacity(data: bytes) -> np.ndarray | None:
    """The opacity of each pixel of an encoded image, uint8 [H, W]; None for one without transparency.

    Raises:
        ValueError: the bytes do not decode.
    """
    name = image_format(data)
    try:
        image = _upright(_open_image(data, name, COLOURS), name)
        return np.array(image.convert("RGBA"))[..., 3] if image.has_transparency_data else None
    except ValueError:
        raise
    except Exception as error:  # noqa: BLE001 - libraries raise whatever the file provokes
        raise ValueError(_reason(error)) from error


def _upright(image: Image.Image, name: str) -> Image.Image:
    """The image turned as its orientation says."""
    return image if name == "JXL" else ImageOps.exif_transpose(image)  # whose decoder turns it


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _as_seen(image: Image.Image, name: str, rule: PixelRule) -> np.ndarray:
    image = _upright(image, name)
    profile = image.info.get("icc_profile")
    transparent = image.has_transparency_data
    if image.mode in ("P", "PA", "1", "LA") or transparent:
        image = image.convert("RGBA" if transparent else "L" if image.mode == "1" else "RGB")
    if profile or image.mode == "LAB":
        image = _in_srgb(image, profile)
    if transparent:
        background = Image.new("RGBA", image.size, (*ImageColor.getrgb(rule.background)[:3], 255))
        image = Image.alpha_composite(background, image.convert("RGBA"))
    image = image.convert("RGB" if rule.channels == 3 else "L")
    return np.array(image).reshape(image.height, image.width, rule.channels)


def _open_image(data: bytes, name: str, rule: PixelRule) -> Image.Image:
    """The first frame with 8 bits a channel, and its metadata."""
    values = deep_pixels(data, name)
    if values is None:
        image = pillow_image(data, name)
        if rule.least_side:
            image.draft(image.mode, (rule.least_side, rule.least_side))  # of a JPEG
        return image
    colours = 1 if values.shape[-1] < 3 else 3
    pixels = to_8_bits(values[..., :colours], rule.pixel_range)
    if values.shape[-1] > colours:  # transparency, to which pixel_range does not apply
        pixels = np.concatenate([pixels, to_8_bits(values[..., colours : colours + 1], None)], axis=-1)
    image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    orientation, profile = orientation_and_profile(data, name)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image.info = {"exif": exif.tobytes(), **({"icc_profile": profile} if profile else {})}
    return image


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The image in the colours of sRGB; unchanged where its profile cannot be used."""
    transform = _to_srgb(profile, image.mode)
    return image if transform is None else cast(Image.Image, ImageCms.applyTransform(image, transform))


@functools.lru_cache(64)
def _to_srgb(profile: bytes | None, mode: str) -> Any:
    """The transform from a profile to sRGB; None where there is none, or where it changes next to nothing."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
        into = "RGBA" if mode == "RGBA" else "RGB"
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, into)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):  # damaged, or of another kind of image
        return None
    return None if mode == "RGB" and _changes_nothing(transform) else transform


def _changes_nothing(transform: Any) -> bool:
    """Whether a transform from RGB leaves every colour within `SRGB_ERROR` levels."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
    moved = np.asarray(ImageCms.applyTransform(Image.fromarray(cube), transform))
    return int(np.abs(moved.astype(int) - cube).max()) <= SRGB_ERROR


def is_srgb(profile: bytes | None) -> bool:
    """Whether the colours of an RGB image with this profile are shown right without it."""
    return not profile or _to_srgb(profile, "RGB") is None
