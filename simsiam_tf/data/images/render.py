"""Encoded bytes → pixels as a person sees the picture: upright, on a background, in sRGB, of 8 bits."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import io
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from PIL import Image, ImageCms, ImageColor, ImageOps, TiffImagePlugin

from simsiam_tf.config.images import check_range
from simsiam_tf.data.images.formats import UnavailableFormat, image_format

ORIENTATION, BITS_PER_SAMPLE, ICC_PROFILE = 274, 258, 34675  # tags of TIFF; the first of EXIF, too
PLUGINS = {"HEIF": ("pillow_heif", "heif"), "JXL": ("pillow_jxl", "jxl")}  # format → module, extra
SRGB_ERROR = 2  # levels by which a profile may differ from sRGB and still count as it
_TRANSPOSED = {
    2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1], 5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1), 7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x.swapaxes(0, 1)[::-1],
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PixelRule:
    """What encoded images become.

    channels: 1, 3, or the number of channels of images that have others.
    background: the colour that transparent pixels are laid on, as Pillow reads it: "white", "#rrggbb".
    pixel_range: the values of deep pixels (more than 8 bits) that become 0 and 255; None: the smallest and
        largest value of their type, 0 and 1 for floating point.
    """

    channels: int = 3
    background: str = "white"
    pixel_range: tuple[float, float] | None = None

    @classmethod
    def from_options(cls, channels: int, background: str = "white", pixel_range: str = "type") -> PixelRule:
        """The rule of options of `data.open_source`; auto without a sample counts as "type"."""
        given = pixel_range not in ("auto", "type")
        return cls(channels, background, check_range(pixel_range) if given else None)

    def options(self) -> dict[str, str]:
        """The options of `data.open_source` that give this rule for images of the same kind."""
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
    profile in sRGB; transparent pixels on the background. Everything that Pillow renders is as Pillow
    renders it.

    Raises:
        ValueError: the bytes do not decode, or have another number of channels than the rule.
    """
    name = image_format(data)
    try:
        if rule.channels not in (1, 3):
            return _scaled(_all_channels(data, name, rule.channels), rule.pixel_range)
        return _as_seen(_open_image(data, name, rule), name, rule)
    except ValueError:
        raise
    except Exception as error:  # noqa: BLE001 - libraries raise whatever the file provokes
        raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from error


def deep_values(data: bytes, channels: int) -> np.ndarray | None:
    """The values of an image whose channels have more than 8 bits, [H, W, C]; None for others."""
    name = image_format(data)
    if channels not in (1, 3):
        values = _all_channels(data, name, channels)
    else:
        values = _deep_pixels(data, name)
    return None if values is None or values.dtype == np.uint8 else values


def _as_seen(image: Image.Image, name: str, rule: PixelRule) -> np.ndarray:
    if name != "JXL":  # whose decoder turns the image, and whose EXIF does not count
        image = ImageOps.exif_transpose(image)
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
    values = _deep_pixels(data, name)
    if values is None:
        return pillow_image(data, name)
    colours = 1 if values.shape[-1] < 3 else 3
    pixels = _scaled(values[..., :colours], rule.pixel_range)
    if values.shape[-1] > colours:  # transparency, which has no range of its own
        pixels = np.concatenate([pixels, _scaled(values[..., colours : colours + 1], None)], axis=-1)
    image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    orientation, profile = _metadata(data, name)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image.info = {"exif": exif.tobytes(), **({"icc_profile": profile} if profile else {})}
    return image


def pillow_image(data: bytes, name: str) -> Image.Image:
    """Pillow's image, not yet decoded."""
    _register_plugin(name)
    # NOTE: not Image.open, whose own limit of pixels warns or raises by a setting of the process.
    factory: Callable[..., Image.Image] = Image.OPEN[name][0]
    return factory(io.BytesIO(data), "")


@functools.cache
def _register_plugin(name: str) -> None:
    Image.init()
    if name not in PLUGINS:
        return
    module, extra = PLUGINS[name]
    try:
        plugin: Any = importlib.import_module(module)
    except ImportError as error:
        raise UnavailableFormat(f"{name} images need pip install 'simsiam-tf[{extra}]'") from error
    if name == "HEIF":
        plugin.register_heif_opener()


def _deep_pixels(data: bytes, name: str) -> np.ndarray | None:
    """The pixels [H, W, 1 to 4] of an image with more than 8 bits a channel; None for others.

    Photographs of 10 bits (AVIF, HEIF) are no such images: their decoders bring them to 8 bits.
    """
    if name == "PNG" and data[24:25] == b"\x10":  # bit depth
        import tensorflow as tf  # Pillow drops the low bytes of colours

        return tf.io.decode_png(data, dtype=tf.uint16).numpy()
    if name == "TIFF":
        return _tiff_array(data, 4) if _tiff_bits(data) > 8 else None
    if name == "NPY":
        return _numpy_array(data)
    if name == "JPEG2000":
        with pillow_image(data, name) as image:
            return np.array(image)[..., None] if image.mode.startswith("I") else None
    return None


def _all_channels(data: bytes, name: str, channels: int) -> np.ndarray:
    """The values of a TIFF or .npy image of any number of channels: [H, W, channels]."""
    if name == "NPY":
        values, orientation = _numpy_array(data), 1
    elif name == "TIFF":
        values, (orientation, _) = _tiff_array(data, channels), _metadata(data, name)
    else:
        raise ValueError(f"a {name}, which has no {channels} channels; TIFF and .npy files can have")
    if values.shape[-1] != channels:
        raise ValueError(f"an array of shape {values.shape} in the place of [height, width, {channels}]")
    return _TRANSPOSED.get(orientation, lambda x: x)(values)


def _numpy_array(data: bytes) -> np.ndarray:
    values = np.load(io.BytesIO(data), allow_pickle=False)
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3:
        raise ValueError(f"an array of shape {values.shape} in the place of [height, width, channels]")
    return values


def _tiff_array(data: bytes, most_channels: int) -> np.ndarray:
    """The first image of a TIFF, [H, W, C], of which only its pages are decoded.

    Pages that are channels of one image are stacked; of times and depths, the first is taken.
    """
    with _open_tiff(data) as tiff:
        series = tiff.series[0]
        page_axes = series.keyframe.axes  # such as YX, YXS and SYX
        axes, shape = series.axes.removesuffix(page_axes), series.shape
        channel_axis = next((i for i, axis in enumerate(axes) if axis in "CQIS"), None)
        stacked = 1 if channel_axis is None else shape[channel_axis]
        channels = stacked * (1 if "S" not in page_axes else series.keyframe.shape[page_axes.index("S")])
        if channels > most_channels:
            raise ValueError(f"it has {channels} channels, not {most_channels}; pass channels={channels}")
        wanted = (
            [0]
            if channel_axis is None
            else [
                int(
                    np.ravel_multi_index(
                        [c if i == channel_axis else 0 for i in range(len(axes))], shape[: len(axes)]
                    )
                )
                for c in range(stacked)
            ]
        )
        pages = [np.asarray(tiff.asarray(key=i, series=0)) for i in wanted]
    if "S" in page_axes:
        pages = [np.moveaxis(page, page_axes.index("S"), -1) for page in pages]
    else:
        pages = [page[..., None] for page in pages]
    return np.concatenate(pages, axis=-1)


def _open_tiff(data: bytes) -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise UnavailableFormat(
            "TIFF images of more than 8 bits need pip install 'simsiam-tf[tiff]'"
        ) from error
    return tifffile.TiffFile(io.BytesIO(data))


def tiff_tags(data: bytes) -> Any:
    """The tags of a TIFF's first image, number → value."""
    big = data[2:3] == b"\x2b" or data[3:4] == b"\x2b"
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if big else 8])
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    return tags


def _tiff_bits(data: bytes) -> int:
    """Bits of the deepest channel."""
    return max(tiff_tags(data).get(BITS_PER_SAMPLE, (1,)))


def _metadata(data: bytes, name: str) -> tuple[int, bytes | None]:
    """(orientation, profile)."""
    if name == "NPY":
        return 1, None
    if name == "TIFF":
        tags = tiff_tags(data)
        return tags.get(ORIENTATION, 1), tags.get(ICC_PROFILE)
    with pillow_image(data, name) as image:
        return image.getexif().get(ORIENTATION, 1), image.info.get("icc_profile")


def _scaled(values: np.ndarray, pixel_range: tuple[float, float] | None) -> np.ndarray:
    """Deep values → uint8; values of 8 bits stay."""
    if values.dtype == np.uint8:
        return values
    low, high = pixel_range or type_range(values.dtype)
    with np.errstate(invalid="ignore"):
        scaled = (values.astype(np.float64) - low) * (255.0 / (high - low))
    return np.clip(np.rint(np.nan_to_num(scaled, nan=0.0)), 0, 255).astype(np.uint8)


def type_range(dtype: np.dtype) -> tuple[float, float]:
    """The values that become 0 and 255 where no range is given."""
    if dtype.kind == "f":
        return 0.0, 1.0
    if dtype.kind not in "iu":
        raise ValueError(f"values of the type {dtype}")
    return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The image in the colours of sRGB; unchanged where its profile cannot be used."""
    transform = _to_srgb(profile, image.mode)
    return image if transform is None else cast(Image.Image, ImageCms.applyTransform(image, transform))


@functools.lru_cache(64)
def _to_srgb(profile: bytes | None, mode: str) -> Any:
    """The transform from a profile to sRGB; None where there is none, or it changes next to nothing."""
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
