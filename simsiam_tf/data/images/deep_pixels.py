"""Images of more than 8 bits a channel, and of any number of channels, as arrays of their values."""

from __future__ import annotations

import io

import numpy as np

from simsiam_tf.data.images.formats import image_format, import_library
from simsiam_tf.data.images.pillow_image import (
    BITS_PER_SAMPLE,
    ICC_PROFILE,
    ORIENTATION,
    pillow_image,
    tiff_tags,
)
from simsiam_tf.runtime.display_text import counted

_TRANSPOSED = {
    2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1], 5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1), 7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x.swapaxes(0, 1)[::-1],
}  # fmt: skip


def deep_values(data: bytes, channels: int) -> np.ndarray | None:
    """The values [H, W, C] of an image with more than 8 bits a channel; None for others.

    channels: as in `PixelRule`; ValueError is raised where it is not 1 or 3 and the image has another number.
    """
    name = image_format(data)
    if channels not in (1, 3):
        values = all_channels(data, name, channels)
    else:
        values = deep_pixels(data, name)
    return None if values is None or values.dtype == np.uint8 else values


def deep_pixels(data: bytes, name: str) -> np.ndarray | None:
    """The pixels [H, W, C] of an image with more than 8 bits a channel, or of an .npy file; None for others.

    Also None for photographs of 10 bits (AVIF, HEIF): their decoders bring them to 8 bits.

    name: the format, as from `image_format`. Raises ValueError for a TIFF of more than 4 channels.
    """
    if name == "PNG" and data[24:25] == b"\x10":  # bit depth
        import tensorflow as tf  # Pillow drops the low bytes of colours

        return tf.io.decode_png(data, dtype=tf.uint16).numpy()
    if name == "TIFF":
        return _tiff_array(data, 4) if _tiff_bits(data) > 8 else None
    if name == "NPY":
        return _numpy_array(data, 4)
    if name == "JPEG2000":
        with pillow_image(data, name) as image:
            return np.array(image)[..., None] if image.mode.startswith("I") else None
    return None


def all_channels(data: bytes, name: str, channels: int) -> np.ndarray:
    """The values of a TIFF or .npy image, upright: [H, W, channels]. Raises ValueError for other images."""
    if name == "NPY":
        values, orientation = _numpy_array(data, channels), 1
    elif name == "TIFF":
        values, (orientation, _) = _tiff_array(data, channels), orientation_and_profile(data, name)
    else:
        raise ValueError(f"a {name}, which has no {channels} channels; TIFF and .npy files can have")
    if values.shape[-1] != channels:
        raise ValueError(f"an array of shape {values.shape} in the place of [height, width, {channels}]")
    return _TRANSPOSED.get(orientation, lambda x: x)(values)


def _numpy_array(data: bytes, most_channels: int) -> np.ndarray:
    values = np.load(io.BytesIO(data), allow_pickle=False)
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3:
        raise ValueError(f"an array of shape {values.shape} in the place of [height, width, channels]")
    _check_channels(values.shape[-1], most_channels)
    return values


def _check_channels(channels: int, most: int) -> None:
    if channels > most:
        raise ValueError(f"it has {counted(channels, 'channel')}, not {most}; pass channels={channels}")


def _tiff_array(data: bytes, most_channels: int) -> np.ndarray:
    """The first image of a TIFF, [H, W, C]; no other pages are decoded.

    Pages that are channels of one image are stacked; of several times or depths, the first is taken.
    """
    with import_library("TIFF").TiffFile(io.BytesIO(data)) as tiff:
        series = tiff.series[0]
        page_axes = series.keyframe.axes  # such as YX, YXS and SYX
        axes, shape = series.axes.removesuffix(page_axes), series.shape
        channel_axis = next((i for i, axis in enumerate(axes) if axis in "CQIS"), None)
        stacked = 1 if channel_axis is None else shape[channel_axis]
        channels = stacked * (1 if "S" not in page_axes else series.keyframe.shape[page_axes.index("S")])
        _check_channels(channels, most_channels)
        indices = [[c if i == channel_axis else 0 for i in range(len(axes))] for c in range(stacked)]
        wanted = [int(np.ravel_multi_index(index, shape[: len(axes)])) if axes else 0 for index in indices]
        pages = [np.asarray(tiff.asarray(key=i, series=0)) for i in wanted]
    if "S" in page_axes:
        pages = [np.moveaxis(page, page_axes.index("S"), -1) for page in pages]
    else:
        pages = [page[..., None] for page in pages]
    return np.concatenate(pages, axis=-1)


def _tiff_bits(data: bytes) -> int:
    """Bits of the deepest channel of a TIFF's first image."""
    return max(tiff_tags(data).get(BITS_PER_SAMPLE, (1,)))


def orientation_and_profile(data: bytes, name: str) -> tuple[int, bytes | None]:
    """(EXIF orientation; ICC profile, None without one) of an image file of the format `name`."""
    if name == "NPY":
        return 1, None
    if name == "TIFF":
        tags = tiff_tags(data)
        return tags.get(ORIENTATION, 1), tags.get(ICC_PROFILE)
    with pillow_image(data, name) as image:
        return image.getexif().get(ORIENTATION, 1), image.info.get("icc_profile")


def to_8_bits(values: np.ndarray, pixel_range: tuple[float, float] | None) -> np.ndarray:
    """Deep values → uint8; uint8 stays. pixel_range: values that become 0 and 255; None: `type_range`."""
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
