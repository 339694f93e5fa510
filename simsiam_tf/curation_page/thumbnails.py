"""Thumbnails of a page: inside it as base64, or as files in a folder beside it."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import hashlib
import io
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_tf.runtime import cores, progress
from simsiam_tf.runtime.atomic_files import check_no_links, remove_path

SIDE = 128  # pixels of a thumbnail's longer side
SMALL = 32  # pixels of the longer side of pictures that are kept as PNG, without losses
QUALITY = 85  # of the others, as WebP or, where Pillow lacks it, as JPEG
IN_FOLDER = 1000  # files of a folder
MAGIC = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp"}  # the first bytes of each format


def encode_thumbnail(image: np.ndarray, side: int = SIDE) -> bytes:
    """A picture uint8 [H, W, C] as a WebP of at most `side` pixels a side, or as a PNG where it is small.

    Of other numbers of channels than 1 and 3, the first three or the first are shown.
    """
    from PIL import Image, features

    channels = image.shape[-1]
    picture = Image.fromarray(np.ascontiguousarray(image[..., :3] if channels > 2 else image[..., 0]))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    if max(picture.size) <= SMALL:
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "WEBP" if features.check("webp") else "JPEG", quality=QUALITY)
    return buffer.getvalue()


def file_type(data: bytes | None) -> str:
    """The ending that belongs to the bytes of a picture; "" for None. Raises ValueError for other bytes."""
    if data is None:
        return ""
    for magic, ending in MAGIC.items():
        if data.startswith(magic):
            return ending
    raise ValueError(f"a thumbnail must be JPEG, PNG or WebP. Received bytes: {data[:8]!r}")


def inline_thumbnails(thumbnail: Callable[[int], bytes | None], rows: np.ndarray) -> dict:
    """Thumbnails of rows as base64, equal ones once.

    "data", "types": of each thumbnail, "" for none. "places": the thumbnail of each row.
    """
    pictures = _DistinctPictures()
    data = [base64.b64encode(picture or b"").decode() for picture in pictures.of(thumbnail, rows)]
    return {"folder": "", "places": pictures.places, "types": pictures.types, "data": data}


def write_thumbnails(thumbnail: Callable[[int], bytes | None], rows: np.ndarray, page: Path) -> dict:
    """Writes thumbnails of rows, equal ones once, into a new folder in that of a page.

    The folder is named by their contents; the result is that of `inline_thumbnails`, without "data".

    The page that has the new folder's name replaces the old page at once; `remove_other_thumbnails` then
    removes the folder of the old one.

    Raises:
        OSError: they cannot be written. UserError: the folder is a link or a file.
    """
    check_no_links(page.parent, (), (folder_name(page),))
    above = page.parent / folder_name(page)
    temporary = above / f".writing-{secrets.token_hex(8)}.tmp"
    digest, pictures = hashlib.sha256(), _DistinctPictures()
    try:
        temporary.mkdir(parents=True)
        for place, picture in enumerate(pictures.of(thumbnail, rows)):
            digest.update(f"{len(picture or b'')},".encode() + (picture or b""))
            if picture is not None:
                file = temporary / thumbnail_name(place, pictures.types[place])
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(picture)
        folder = above / digest.hexdigest()[:16]
        remove_path(folder)
        temporary.replace(folder)
    except BaseException:
        remove_path(temporary)
        raise
    name = f"{above.name}/{folder.name}/"
    return {"folder": name, "places": pictures.places, "types": pictures.types, "data": None}


def folder_name(page: Path) -> str:
    """The folder beside a page that has its thumbnails: `curation_thumbnails` for `curation.html`."""
    return f"{page.stem}_thumbnails"


def thumbnail_name(place: int, ending: str) -> str:
    """The file of a thumbnail; `state.js` makes the same."""
    return f"{place // IN_FOLDER}/{place}.{ending}"


def remove_other_thumbnails(page: Path, kept: str) -> None:
    """Removes the folders of thumbnails of earlier pages.

    kept: the folder in the state of the new one; "" for none.
    """
    above = page.parent / folder_name(page)
    if above.is_dir() and not above.is_symlink():
        for folder in above.iterdir():
            is_ours = re.fullmatch(r"[0-9a-f]{16}|\.writing-[0-9a-f]{16}\.tmp", folder.name)
            if is_ours and kept != f"{above.name}/{folder.name}/":
                remove_path(folder)
        with contextlib.suppress(OSError):  # not empty
            above.rmdir()


class _DistinctPictures:
    """Thumbnails without repetitions.

    places: of each row so far, the number of its thumbnail, in [0, thumbnails so far). types: of each
    thumbnail (`file_type`).
    """

    def __init__(self) -> None:
        self.places: list[int] = []
        self.types: list[str] = []
        self._numbers: dict[bytes | None, int] = {}  # digest → number of the thumbnail

    def of(self, thumbnail: Callable[[int], bytes | None], rows: np.ndarray) -> Iterator[bytes | None]:
        """Makes the thumbnails of rows; yields each that differs from those before it."""
        for picture in _pictures(thumbnail, rows):
            key = picture and hashlib.sha256(picture).digest()
            self.places.append(self._numbers.setdefault(key, len(self.types)))
            if self.places[-1] == len(self.types):
                self.types.append(file_type(picture))
                yield picture


def _pictures(thumbnail: Callable[[int], bytes | None], rows: np.ndarray) -> Any:
    """Thumbnails in the order of the rows, made by a thread for each core; None where there is none."""
    with concurrent.futures.ThreadPoolExecutor(cores.decoding_threads()) as pool:
        parts = (rows[start : start + IN_FOLDER] for start in range(0, len(rows), IN_FOLDER))
        made = (data for part in parts for data in pool.map(thumbnail, part.tolist()))
        yield from progress.bar(made, "thumbnails", total=len(rows))
