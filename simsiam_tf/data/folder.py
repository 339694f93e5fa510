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

from simsiam_tf import progress
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

    def jpeg() -> tf.Tensor:
        # The exact transform gives Pillow's pixels to the bit; TensorFlow's default is off by a level.
        return tf.io.decode_jpeg(data, channels=channels, dct_method="INTEGER_ACCURATE")

    def other() -> tf.Tensor:
        return tf.io.decode_image(data, channels=channels, expand_animations=False)

    image = tf.cond(tf.io.is_jpeg(data), jpeg, other)
    return tf.ensure_shape(image, [None, None, channels])


def read(
    path: str,
    on_bad_image: str = "error",
    report: Path | None = None,
    max_megapixels: float = headers.MEGAPIXELS,
) -> Listing:
    """Lists and checks a folder. Every image is decoded once; `report` remembers the outcome.

    Args:
        path: the folder; nested folders are followed, hidden ones and links to folders not. Links to
            files are.
        on_bad_image: "error" refuses the folder when an image cannot be decoded, "skip" leaves
            such images out.
        report: JSON file with the unreadable names and a signature of the folder. While the
            signature agrees the images are not decoded again.
        max_megapixels: larger images count as unreadable, by what `headers` finds before decoding.

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
    first = "{} ({})".format(*_first(bad)) if bad else ""
    if bad and on_bad_image == "error":
        where = f" All are named in {report}." if report else ""
        raise UserError(
            f"folder:{path}: {len(bad)} of {len(names)} images cannot be decoded, such as "
            f"{first}.{where} Mend or remove them, or pass --on_bad_image=skip."
        )
    if bad:
        where = f"; named in {report}" if report else f", such as {first}"
        print(f"folder:{path}: {len(bad)} of {len(names)} images left out{where}", file=sys.stderr)
    names = [name for name in names if name not in bad]
    if not names:
        raise UserError(f"folder:{path}: not one of its images can be decoded.")
    return Listing(root, names, *_classes(names))


def _first(bad: dict[str, str]) -> tuple[str, str]:
    """A name, as it can be shown, and its reason."""
    name, reason = next(iter(bad.items()))
    return name if name.isprintable() else ascii(name), reason


def _names(root: Path) -> list[str]:
    """Names of all images within, sorted. A folder that cannot be listed stands in for its images."""
    found, pending = [], [""]
    while pending:  # not os.walk, which passes over what it cannot list, and recurses
        inside = pending.pop()
        try:
            with os.scandir(os.path.join(root, inside)) as entries:
                seen = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            if not inside:
                raise UserError(f"folder:{root}: cannot be listed ({error.strerror}).") from error
            found.append(os.path.join(inside, ""))
            continue
        for entry in seen:
            name = os.path.join(inside, entry.name)
            if entry.is_dir(follow_symlinks=False):
                pending.append(name)
            elif os.path.splitext(name)[1].lower() in SUFFIXES and not _is_link_to_folder(entry):
                found.append(name)
    return sorted(found)


def _is_link_to_folder(entry: os.DirEntry) -> bool:
    return entry.is_symlink() and os.path.isdir(entry)


def _classes(names: list[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    tops = [name.split(os.sep)[0] if os.sep in name else "" for name in names]
    classes = sorted(set(tops))
    if "" in classes or len(classes) < 2:
        return None, ()
    place = {name: i for i, name in enumerate(classes)}
    return np.array([place[top] for top in tops], np.int64), tuple(classes)


def _signature(root: Path, names: list[str], max_megapixels: float) -> list:
    """What the outcome of a check depends on, as JSON."""
    signature: list = [max_megapixels]
    for name in names:
        try:
            status = os.stat(root / name)
            signature.append([name, status.st_size, status.st_mtime_ns])
        except OSError:  # such as a link that leads nowhere
            signature.append([name, None, None])
    return signature


def _known(report: Path | None, signature: list) -> dict[str, str] | None:
    """What a report says of a folder with this signature; None where it says nothing of use."""
    most = 2**20 + sum(12 * len(name) + 1000 for name, *_ in signature[1:])
    try:
        if report is None or not report.is_file() or report.stat().st_size > most:
            return None
        known = json.loads(report.read_text(encoding="utf-8"))
        bad = known["unreadable"] if known["signature"] == signature else None
        return bad if all(isinstance(reason, str) for reason in bad.values()) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # damaged
        return None


def _unreadable(root: Path, names: list[str], report: Path | None, max_megapixels: float) -> dict[str, str]:
    """name → reason, of the images that do not decode."""
    signature = _signature(root, names, max_megapixels)
    known = _known(report, signature)
    if known is not None:
        return known
    reason = functools.partial(_reason, max_megapixels=max_megapixels)
    dataset = tf.data.Dataset.from_tensor_slices([os.fsencode(root / name) for name in names])
    dataset = dataset.map(lambda path: tf.numpy_function(reason, [path], tf.string), tf.data.AUTOTUNE)
    reasons = progress.bar(dataset.as_numpy_iterator(), "checking images", total=len(names))
    bad = {n: r.decode(errors="replace") for n, r in zip(names, reasons, strict=True) if r}
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
        temporary = report.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)  # it could be a link to another place
        with open(temporary, "x") as file:
            json.dump({"unreadable": bad, "signature": signature}, file, indent=1)
        temporary.replace(report)
    return bad


def _reason(path: bytes, max_megapixels: float) -> bytes:
    """Why this file is no image, or nothing."""
    try:
        image = decode(tf.constant(headers.read_checked(path, max_megapixels)))
    except (OSError, ValueError, tf.errors.OpError) as error:
        text = (isinstance(error, OSError) and error.strerror) or str(error) or "unreadable"
        return text.split("\n")[0][:200].encode(errors="replace")
    return b"" if 0 not in image.shape else b"no pixels"
