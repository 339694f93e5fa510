"""Formats of image files by their first bytes, suffixes of names, and the libraries that formats need."""

from __future__ import annotations

import importlib
import re
from typing import Any

MAGIC_BYTES = 64  # at the start of a file, enough to tell its format
_IMAGES = {
    "JPEG": rb"\xff\xd8\xff", "PNG": rb"\x89PNG\r\n\x1a\n", "GIF": rb"GIF8[79]a", "BMP": rb"BM",
    "WEBP": rb"RIFF....WEBP", "TIFF": rb"II[*+]\0|MM\0[*+]", "AVIF": rb"....ftypavi[fs]",
    "HEIF": rb"....ftyp(hei[cxms]|hev[cmx]|mif1|msf1)", "JXL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "JPEG2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "NPY": rb"\x93NUMPY",
}  # fmt: skip
_OTHER_FILES = {
    "an HTML page": rb"\s*(<!DOCTYPE html|<html)", "an SVG drawing": rb"\s*<svg|\s*<\?xml.*<svg",
    "an XML file": rb"\s*<\?xml", "a PDF": rb"%PDF", "a ZIP archive": rb"PK\x03\x04",
    "a gzip archive": rb"\x1f\x8b", "a video": rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ",
    "a Photoshop file": rb"8BPS", "a Git LFS pointer": rb"version https://git-lfs",
}  # fmt: skip

IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif",
    ".tiff", ".avif", ".avifs", ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpx", ".npy",
}  # fmt: skip
OTHER_SUFFIXES = {  # of files that lie beside images and are not opened to look for images
    ".txt", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".html", ".htm", ".md", ".yaml", ".yml", ".pdf",
    ".zip", ".tar", ".gz", ".mp4", ".mov", ".avi", ".cls", ".log", ".py", ".npz", ".parquet", ".db",
    ".ini", ".xmp", ".aae", ".svg", ".psd",
}  # fmt: skip


EXTRAS = {  # format that needs another library: its module, and the extra that installs it
    "HEIF": ("pillow_heif", "heif"), "JXL": ("pillow_jxl", "jxl"), "TIFF": ("tifffile", "tiff"),
}  # fmt: skip


class UnavailableFormat(ValueError):
    """A format whose library is not installed; the message says what to install."""


def import_library(name: str) -> Any:
    """The module of `EXTRAS` that a format needs. Raises UnavailableFormat where it is not installed."""
    module, extra = EXTRAS[name]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        such = "TIFF images of over 8 bits or of 2 or 4+ channels" if name == "TIFF" else f"{name} images"
        raise UnavailableFormat(f"{such} need pip install 'simsiam-tf[{extra}]'") from error


def needs_library(name: str, bits: int, channels: int) -> bool:
    """Whether an image needs the module of `EXTRAS`; TIFFs of 8 bits and 1 or 3 channels do not."""
    return name in EXTRAS and (name != "TIFF" or bits > 8 or channels not in (1, 3))


def image_format(data: bytes) -> str:
    """The format of an image file by its first `MAGIC_BYTES` (or more): Pillow's name for it, or "NPY".

    Raises:
        ValueError: it is no image file; the message says what it is, where that is known.
    """
    for name, pattern in _IMAGES.items():
        if re.match(pattern, data, re.DOTALL):
            return name
    if not data.strip(b"\0"):
        raise ValueError("empty file" if not data else "only zeros")
    for name, pattern in _OTHER_FILES.items():
        if re.match(pattern, data, re.DOTALL | re.IGNORECASE):
            raise ValueError(f"{name}, not an image")
    if re.fullmatch(rb"[\t\n\r -~\x80-\xff]+", data[:MAGIC_BYTES]):
        raise ValueError("a text, not an image")
    raise ValueError("not an image of a format known here")
