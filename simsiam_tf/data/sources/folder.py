"""Folders of images: listing, decoding, and finding the unreadable ones before training."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from simsiam_tf.data.images import header_check
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.atomic_files import atomic_write_text
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"}
UNREADABLE = "-"  # in a report, in the place of a digest


@dataclasses.dataclass(frozen=True)
class Listing:
    """The images of a folder in a fixed order, by name relative to the root.

    labels: int64 class of each where every image lies in a folder of the first level and there
    are at least two such folders; else None.
    digests: bytes, of each image's file as it was when it was checked (`digest`).
    """

    root: Path
    names: list[str]
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    digests: np.ndarray


def decode(data: tf.Tensor, channels: int = 3) -> tf.Tensor:
    """Encoded bytes → uint8 [H, W, channels]; the first frame of an animation."""

    def jpeg() -> tf.Tensor:
        # The exact transform gives Pillow's pixels to the bit; TensorFlow's default is off by a level.
        return tf.io.decode_jpeg(data, channels=channels, dct_method="INTEGER_ACCURATE")

    def other() -> tf.Tensor:
        return tf.io.decode_image(data, channels=channels, expand_animations=False)

    image = tf.cond(tf.io.is_jpeg(data), jpeg, other)
    return tf.ensure_shape(image, [None, None, channels])


def digest(data: bytes) -> bytes:
    """The length of a file's bytes and their BLAKE2b, as text: two files that share it are the same."""
    return b"%d-%s" % (len(data), hashlib.blake2b(data, digest_size=8).hexdigest().encode())


def read_unchanged(path: str, expected: bytes) -> bytes:
    """The bytes of a file whose digest is known. Raises OSError or ValueError where it is another by now."""
    size = int(expected.partition(b"-")[0])
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        data = file.read(size) if stat.S_ISREG(status.st_mode) and status.st_size == size else b""
    if digest(data) != expected:
        raise ValueError("changed")
    return data


def read(
    path: str,
    on_bad_image: str = "error",
    report: Path | None = None,
    max_megapixels: float = header_check.MEGAPIXELS,
) -> Listing:
    """Lists and checks a folder. Every image is decoded once; `report` remembers the outcome.

    A line on stderr says which images were left out, and which have other contents than when the report
    was written.

    Args:
        path: the folder; nested folders are followed, hidden ones and links to folders not. Links to
            files are.
        on_bad_image: "error" refuses the folder when an image cannot be decoded, "skip" leaves
            such images out.
        report: JSON file with the unreadable names, and with size, times and digest of every image.
            An image whose size and times are the same is not read again. Where the report cannot be
            written, a line says so.
        max_megapixels: larger images count as unreadable, by what `headers` finds before decoding.

    Raises:
        UserError: missing or empty folder, or unreadable images with "error".
    """
    root, shown = Path(path).expanduser(), printable_text(f"folder:{path}")
    if not path or not root.is_dir():
        raise UserError(f"{shown}: no such folder. Pass data=folder:/path/to/images.")
    names = _names(root)
    if not names:
        raise UserError(f"{shown}: holds no image ({', '.join(sorted(SUFFIXES))}), at any depth.")
    bad, digests, written = _check(root, names, shown, report, max_megapixels)
    first = next((f"{printable_text(name)} ({reason})" for name, reason in bad.items()), "")
    if bad and on_bad_image == "error":
        where = f" All are named in {report}." if written else ""
        raise UserError(
            f"{shown}: {len(bad)} of {len(names)} images cannot be decoded, such as "
            f"{first}.{where} Mend or remove them, or pass on_bad_image=skip."
        )
    if bad:
        where = f"; named in {report}" if written else f", such as {first}"
        print(f"{shown}: {len(bad)} of {len(names)} images left out{where}", file=sys.stderr)
    names = [name for name in names if name not in bad]
    if not names:
        raise UserError(f"{shown}: not one of its images can be decoded.")
    _say_strays(names, shown)
    return Listing(root, names, *_classes(names), np.array([digests[name] for name in names], np.bytes_))


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
                shown = printable_text(f"folder:{root}")
                raise UserError(f"{shown}: cannot be listed ({error.strerror}).") from error
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


def _say_strays(names: list[str], shown: str) -> None:
    """Names on stderr the images that lie beside several folders, so that these are no classes."""
    strays = [name for name in names if os.sep not in name]
    folders = {name.split(os.sep)[0] for name in names if os.sep in name}
    if strays and len(folders) > 1:
        print(
            f"{shown}: no labels, since {len(strays)} of {len(names)} images lie beside its {len(folders)} "
            f"folders: {printable_text(strays[0])}{', …' * (len(strays) > 1)}. If the folders are classes, "
            "move the images into them, or away.",
            file=sys.stderr,
        )


def _check(
    root: Path, names: list[str], shown: str, report: Path | None, max_megapixels: float
) -> tuple[dict[str, str], dict[str, str], bool]:
    """Reasons of the images that do not decode, and digests of all, by name; whether the report has them."""
    states = {name: _state(os.path.join(root, name)) for name in names}
    before, reasons = _read_report(report, names, max_megapixels)
    digests = {n: before[n][1] for n in names if before.get(n, ("",))[0] == states[n]}
    bad = {n: reasons[n] for n, digest in digests.items() if digest == UNREADABLE}
    todo = [name for name in names if name not in digests]
    for name, (known, reason) in zip(todo, _outcomes(root, todo, max_megapixels), strict=True):
        digests[name] = known
        if reason:
            bad[name] = reason
    bad = {name: bad[name] for name in names if name in bad}
    _say_changes(before, digests, shown, report)
    written = report is not None
    if report and (todo or len(before) != len(names)):
        images = {name: f"{states[name]} {digests[name]}" for name in names}
        content = {"max_megapixels": max_megapixels, "unreadable": bad, "images": images}
        written = _write_report(report, content)
    return bad, digests, written


def _state(path: str) -> str:
    """A file's size and times: they differ once it was written to or replaced."""
    # NOTE: the third number cannot be set, so that it also tells of a file whose mtime was put back.
    try:
        status = os.stat(path)
        return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    except OSError:  # such as a link that leads nowhere
        return "missing"


def _read_report(
    report: Path | None, names: list[str], max_megapixels: float
) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """({name: (state, digest)}, {name: reason}) of a report; empty where it says nothing of use."""
    most = 2**20 + sum(12 * len(name) + 1000 for name in names) * 2  # bytes; some images may be gone
    try:
        if report is None or not report.is_file() or report.stat().st_size > most:
            return {}, {}
        known = json.loads(report.read_text(encoding="utf-8"))
        if known["max_megapixels"] != max_megapixels:
            return {}, {}
        reasons, images = known["unreadable"], {}
        for name, text in known["images"].items():
            state, _, digest = text.rpartition(" ")
            if (digest == UNREADABLE) != isinstance(reasons.get(name), str):
                return {}, {}
            images[name] = (state, digest)
        return images, reasons
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # damaged
        return {}, {}


def _outcomes(root: Path, names: list[str], max_megapixels: float) -> Iterator[tuple[str, str]]:
    """(digest, reason why it does not decode) of each image; one of them is empty."""
    if not names:
        return
    outcome = functools.partial(_outcome, max_megapixels=max_megapixels)
    dataset = tf.data.Dataset.from_tensor_slices([os.fsencode(root / name) for name in names])
    dataset = dataset.map(lambda path: tf.numpy_function(outcome, [path], tf.string), tf.data.AUTOTUNE)
    for found in progress.bar(dataset.as_numpy_iterator(), "checking images", total=len(names)):
        known, _, reason = found.decode(errors="replace").partition(" ")
        yield known, reason


def _outcome(path: bytes, max_megapixels: float) -> bytes:
    """ "DIGEST " of an image, or "- REASON" why this file is none."""
    try:
        data = header_check.read_checked(path, max_megapixels)
        if 0 not in decode(tf.constant(data)).shape:
            return digest(data) + b" "
        text = "no pixels"
    except (OSError, ValueError, tf.errors.OpError) as error:
        text = (isinstance(error, OSError) and error.strerror) or str(error) or "unreadable"
    return f"{UNREADABLE} {text.splitlines()[0][:200]}".encode(errors="replace")


def _say_changes(before: dict, digests: dict[str, str], shown: str, report: Path | None) -> None:
    """Says which images are others than in the report."""
    both = [name for name in digests if name in before]
    changed = [name for name in both if before[name][1] != digests[name]]
    counts = {"changed": len(changed), "new": len(digests) - len(both), "gone": len(before) - len(both)}
    if both and any(counts.values()):
        such = f", such as {printable_text(changed[0])}" if changed else ""
        words = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
        print(f"{shown}: of {len(digests)} images, {words} since {report} was written{such}", file=sys.stderr)


def _write_report(report: Path, content: dict) -> bool:
    """Whether it could be written; a line says why not."""
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
        if not report.is_file():
            report.unlink(missing_ok=True)  # a pipe, or a link to nowhere
        atomic_write_text(report, json.dumps(content, indent=1))
        return True
    except OSError as error:
        why = error.strerror
        print(f"{report}: cannot be written ({why}); images are checked again next time", file=sys.stderr)
        return False


def add_to_report(report: Path, names: list[str]) -> None:
    """Adds images to a report's unreadable ones: they changed or went after they had been checked."""
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
        for name in names:
            content["unreadable"][name] = "changed or went while its features were made"
            content["images"][name] = f"changed {UNREADABLE}"  # a state that no file has: it is checked again
    except (OSError, ValueError, KeyError, TypeError):
        return
    _write_report(report, content)
