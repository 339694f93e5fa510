"""Bounds on what decoders do before and besides the pixels, by counting a file's segments.

A file of kilobytes can make its decoder take gigabytes or hours. Nothing is decoded here.
"""

from __future__ import annotations

import re

MAX_SEGMENTS = 2**14  # of a file, besides those that hold pixels
MAX_JUNK = 2**16  # bytes of a JPEG's header that belong to no segment
MAX_SCANS = 100  # of a JPEG: its decoder passes over all pixels once for each; encoders write about ten
MAX_TEXTS = 16  # compressed texts and profiles of a PNG: its decoder expands each to as much as 8 MB

_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # neither an escaped 0xFF nor a restart


def check_segments(data: bytes, name: str, max_pixels: int) -> None:
    """Raises ValueError for a JPEG, PNG or GIF above one of the bounds; other formats pass."""
    if name == "JPEG":
        _check_jpeg(data)
    elif name == "PNG":
        _check_png(data, max_pixels)
    elif name == "GIF":
        _check_gif(data, max_pixels)


def _check_png(data: bytes, max_pixels: int) -> None:
    """Counts chunks (length, type, content, checksum)."""
    at, texts, max_chunks = 8, 0, MAX_SEGMENTS + max_pixels // 1024  # encoders fill chunks of 8 KiB and more
    for _ in range(max_chunks):
        chunk = data[at + 4 : at + 8]
        if chunk in (b"IEND", b""):
            return
        if chunk == b"iTXt":  # keyword, 0, whether it is compressed
            texts += data[data.find(b"\0", at + 8, at + 88) + 1] != 0
        texts += chunk in (b"zTXt", b"iCCP")
        if texts > MAX_TEXTS:
            raise ValueError(f"more than {MAX_TEXTS} compressed texts")
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    raise ValueError(f"more than {max_chunks} chunks")


def _check_jpeg(data: bytes) -> None:
    """Counts segments, scans and bytes outside segments up to the end of the image."""
    at, scans, junk = 2, 0, 0
    for _ in range(MAX_SEGMENTS):
        marker = _JPEG_MARKER.search(data, at)
        if marker is None or marker[1] == b"\xd9":
            return
        junk += 0 if scans else marker.start() - at
        if junk > MAX_JUNK:
            raise ValueError(f"more than {MAX_JUNK} bytes outside segments in its header")
        scans += marker[1] == b"\xda"
        if scans > MAX_SCANS:
            raise ValueError(f"more than {MAX_SCANS} scans")
        at = marker.end()
        if marker[1] > b"\xbf" and marker[1] != b"\xd8":  # a segment that begins with its length
            at += int.from_bytes(data[at : at + 2], "big")
    raise ValueError(f"more than {MAX_SEGMENTS} segments")


def _check_gif(data: bytes, max_pixels: int) -> None:
    """Counts sub-blocks up to the end of the first frame, the only one decoded (GIF89a, Sec. 18 to 27)."""
    max_blocks = MAX_SEGMENTS + max_pixels // 128  # a full block has 255 bytes
    at, blocks, introducer = 13 + _colour_table_bytes(data[10:11]), 0, b""
    while blocks < max_blocks and introducer != b"\x2c":
        introducer = data[at : at + 1]
        if introducer in (b"", b";"):
            return
        if introducer == b"\x2c":  # a frame: place, size, flags, colours, code size, sub-blocks
            at += 11 + _colour_table_bytes(data[at + 9 : at + 10])
        elif introducer == b"\x21":  # an extension: label, sub-blocks
            at += 2
        else:  # a byte that decoders pass over
            at, blocks = at + 1, blocks + 1
            continue
        while blocks < max_blocks and at < len(data) and data[at]:
            at, blocks = at + 1 + data[at], blocks + 1
        at, blocks = at + 1, blocks + 1
    if blocks >= max_blocks:
        raise ValueError(f"more than {max_blocks} blocks")


def _colour_table_bytes(flags: bytes) -> int:
    """Bytes of the colour table that a GIF's flags announce."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0
