"""Checks a folder's images: decodes each once, and keeps the outcome in a report."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from simsiam_tf.data.images.decode import decode
from simsiam_tf.data.images.header_check import read_checked
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.atomic_files import atomic_write_text
from simsiam_tf.runtime.display_text import printable_text

UNREADABLE = "-"  # stands for the digest in a report


def file_digest(data: bytes) -> bytes:
    """The length and the BLAKE2b hash of a file, as text; equal digests mean equal files."""
    return b"%d-%s" % (len(data), hashlib.blake2b(data, digest_size=8).hexdigest().encode())


def read_unchanged(path: str | Path, digest: bytes) -> bytes:
    """Reads a file. Raises OSError, or ValueError where its contents do not have the digest."""
    size = int(digest.partition(b"-")[0])
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        data = file.read(size) if stat.S_ISREG(status.st_mode) and status.st_size == size else b""
    if file_digest(data) != digest:
        raise ValueError("changed")
    return data


def check_images(
    root: Path, names: list[str], shown: str, report: Path | None, max_megapixels: float
) -> tuple[dict[str, str], dict[str, str], bool]:
    """Decodes the images that are new, or changed since the report was written.

    Returns:
        {name: reason} of the images that do not decode, {name: digest} of all images, and whether the
        report names them.
    """
    states = {name: _file_state(os.path.join(root, name)) for name in names}
    before, reasons = _read_report(report, names, max_megapixels)
    digests = {n: before[n][1] for n in names if before.get(n, ("",))[0] == states[n]}
    bad = {n: reasons[n] for n, digest in digests.items() if digest == UNREADABLE}
    unchecked = [name for name in names if name not in digests]
    for name, (digest, reason) in zip(unchecked, _outcomes(root, unchecked, max_megapixels), strict=True):
        digests[name] = digest
        if reason:
            bad[name] = reason
    bad = {name: bad[name] for name in names if name in bad}
    _print_changes(before, digests, shown, report)
    written = report is not None
    if report and (unchecked or len(before) != len(names)):
        images = {name: f"{states[name]} {digests[name]}" for name in names}
        content = {"max_megapixels": max_megapixels, "unreadable": bad, "images": images}
        written = _write_report(report, content)
    return bad, digests, written


def _file_state(path: str) -> str:
    """A file's size and times, which differ once it was written to or replaced."""
    # NOTE: nobody can set ctime, so that it also shows a change after which mtime was set back.
    try:
        status = os.stat(path)
        return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    except OSError:  # such as a link that leads nowhere
        return "missing"


def _outcomes(root: Path, names: list[str], max_megapixels: float) -> Iterator[tuple[str, str]]:
    """(digest, reason why it does not decode) of each image; one of the two is empty."""
    if not names:
        return
    outcome = functools.partial(_outcome, max_megapixels=max_megapixels)
    dataset = tf.data.Dataset.from_tensor_slices([os.fsencode(root / name) for name in names])
    dataset = dataset.map(lambda path: tf.numpy_function(outcome, [path], tf.string), tf.data.AUTOTUNE)
    for text in progress.bar(dataset.as_numpy_iterator(), "checking images", total=len(names)):
        digest, _, reason = text.decode(errors="replace").partition(" ")
        yield digest, reason


def _outcome(path: bytes, max_megapixels: float) -> bytes:
    """ "DIGEST " of an image file, or "- REASON" where it does not decode."""
    try:
        data = read_checked(path, max_megapixels)
        if 0 not in decode(tf.constant(data)).shape:
            return file_digest(data) + b" "
        text = "no pixels"
    except (OSError, ValueError, tf.errors.OpError) as error:
        text = (isinstance(error, OSError) and error.strerror) or str(error) or "unreadable"
    return f"{UNREADABLE} {text.splitlines()[0][:200]}".encode(errors="replace")


def _print_changes(before: dict, digests: dict[str, str], shown: str, report: Path | None) -> None:
    """Says which images have other contents than the report."""
    both = [name for name in digests if name in before]
    changed = [name for name in both if before[name][1] != digests[name]]
    counts = {"changed": len(changed), "new": len(digests) - len(both), "gone": len(before) - len(both)}
    if both and any(counts.values()):
        such = f", such as {printable_text(changed[0])}" if changed else ""
        words = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
        print(f"{shown}: of {len(digests)} images, {words} since {report} was written{such}", file=sys.stderr)


def _read_report(
    report: Path | None, names: list[str], max_megapixels: float
) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """({name: (state, digest)}, {name: reason}) of a report; empty where it is missing or damaged."""
    limit = 2**20 + sum(12 * len(name) + 1000 for name in names) * 2  # bytes; some images may be gone
    try:
        if report is None or not report.is_file() or report.stat().st_size > limit:
            return {}, {}
        content = json.loads(report.read_text(encoding="utf-8"))
        if content["max_megapixels"] != max_megapixels:
            return {}, {}
        reasons, images = content["unreadable"], {}
        for name, text in content["images"].items():
            state, _, digest = text.rpartition(" ")
            if (digest == UNREADABLE) != isinstance(reasons.get(name), str):
                return {}, {}
            images[name] = (state, digest)
        return images, reasons
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # damaged
        return {}, {}


def _write_report(report: Path, content: dict) -> bool:
    """Whether the report could be written; a line on stderr says why not."""
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
        if not report.is_file():
            report.unlink(missing_ok=True)  # a pipe, or a link that leads nowhere
        atomic_write_text(report, json.dumps(content, indent=1))
        return True
    except OSError as error:
        why = error.strerror
        print(f"{report}: cannot be written ({why}); images are checked again next time", file=sys.stderr)
        return False


def add_to_report(report: Path, names: list[str]) -> None:
    """Adds images that changed or disappeared after their check to a report's unreadable ones."""
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
        for name in names:
            content["unreadable"][name] = "changed or disappeared while its features were made"
            content["images"][name] = f"changed {UNREADABLE}"  # no file has this state: it is checked again
    except (OSError, ValueError, KeyError, TypeError):
        return
    _write_report(report, content)
