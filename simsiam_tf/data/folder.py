"""Folders of images: listing, decoding, and finding the unreadable ones before training."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from simsiam_tf.data import headers
from simsiam_tf.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"}


@dataclasses.dataclass(frozen=True)
class Listing:
    """The images of a folder in a fixed order, by name relative to the root.

    labels: int64 class of each where every image lies in a folder of the first level and there
    are at least two such folders; else None.
    """

    root: Path
    names: list[str]
    labels: np.ndarray | None
    class_names: tuple[str, ...]


def decode(data: tf.Tensor, channels: int = 3) -> tf.Tensor:
    """Encoded bytes → uint8 [H, W, channels]; the first frame of an animation."""
    image = tf.io.decode_image(data, channels=channels, expand_animations=False)
    return tf.ensure_shape(image, [None, None, channels])


def read(
    path: str,
    on_bad_image: str = "error",
    report: Path | None = None,
    max_megapixels: float = headers.MEGAPIXELS,
) -> Listing:
    """Lists and checks a folder. Every image is decoded once; `report` remembers the outcome.

    Args:
        path: the folder; nested folders are followed, hidden ones and links to folders not.
        on_bad_image: "error" refuses the folder when an image cannot be decoded, "skip" leaves
            such images out.
        report: JSON file with the unreadable names and a signature of the folder. While the
            signature agrees the images are not decoded again.
        max_megapixels: larger images count as unreadable, by their header, before a pixel is decoded.

    Raises:
        UserError: missing or empty folder, or unreadable images with "error".
    """
    root = Path(path).expanduser()
    if not path or not root.is_dir():
        raise UserError(f"folder:{path}: no such folder. Pass --data=folder:/path/to/images.")
    names = _names(root)
    if not names:
        raise UserError(f"folder:{path}: holds no image ({', '.join(sorted(SUFFIXES))}), at any depth.")
    bad = _unreadable(root, names, report, max_megapixels)
    if bad and on_bad_image == "error":
        where = f" All are named in {report}." if report else ""
        raise UserError(
            f"folder:{path}: {len(bad)} of {len(names)} images cannot be decoded, such as "
            f"{next(iter(bad))}.{where} Mend or remove them, or pass --on_bad_image=skip."
        )
    if bad:
        where = f"; named in {report}" if report else f", such as {next(iter(bad))}"
        print(f"folder:{path}: {len(bad)} of {len(names)} images left out{where}", file=sys.stderr)
    names = [name for name in names if name not in bad]
    if not names:
        raise UserError(f"folder:{path}: not one of its images can be decoded.")
    return Listing(root, names, *_classes(names))


def _names(root: Path) -> list[str]:
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith(".")]
        found += [
            os.path.relpath(os.path.join(folder, f), root)
            for f in files
            if os.path.splitext(f)[1].lower() in SUFFIXES and not f.startswith(".")
        ]
    return sorted(found)


def _classes(names: list[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    tops = [name.split(os.sep)[0] if os.sep in name else "" for name in names]
    classes = sorted(set(tops))
    if "" in classes or len(classes) < 2:
        return None, ()
    place = {name: i for i, name in enumerate(classes)}
    return np.array([place[top] for top in tops], np.int64), tuple(classes)


def _signature(root: Path, names: list[str], max_megapixels: float) -> list:
    signature: list = [max_megapixels]
    for name in names:
        try:
            stats = os.stat(root / name)
            signature.append([name, stats.st_size, stats.st_mtime_ns])
        except OSError:  # a broken link
            signature.append([name, -1, 0])
    return signature


def _known(report: Path | None, signature: list) -> dict[str, str] | None:
    """What the report says of a folder with this signature; None where it says nothing."""
    try:
        known = json.loads(report.read_text()) if report else {}
        bad = known["unreadable"] if known.get("signature") == signature else None
        return bad if isinstance(bad, dict) else None
    except (OSError, ValueError, KeyError, AttributeError, RecursionError):
        return None


def _unreadable(root: Path, names: list[str], report: Path | None, max_megapixels: float) -> dict[str, str]:
    """name → reason, of the images that do not decode."""
    signature = _signature(root, names, max_megapixels)
    known = _known(report, signature)
    if known is not None:
        return known
    reason = functools.partial(_reason, max_megapixels=max_megapixels)
    paths = [os.fsencode(root / name) for name in names]
    dataset = tf.data.Dataset.from_tensor_slices(paths)
    dataset = dataset.map(lambda path: tf.numpy_function(reason, [path], tf.string), tf.data.AUTOTUNE)
    reasons = tqdm(dataset.as_numpy_iterator(), "checking images", len(names), mininterval=1.0, delay=2.0)
    bad = {n: r.decode() for n, r in zip(names, reasons, strict=True) if r}
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
        whole = {"unreadable": bad, "signature": signature}
        temporary = report.with_suffix(".tmp")
        temporary.write_text(json.dumps(whole, indent=1))
        temporary.replace(report)
    return bad


def _reason(path: bytes, max_megapixels: float) -> bytes:
    """Why this file is no image, or nothing."""
    try:
        data = headers.read_checked(path, max_megapixels)
        image = decode(tf.constant(data))
    except (OSError, tf.errors.OpError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return text.split("\n")[0][:200].encode(errors="replace") or b"unreadable"
    return b"" if 0 not in image.shape else b"no pixels"
