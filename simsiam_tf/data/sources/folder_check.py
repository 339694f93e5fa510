"""Checks a folder's images: decodes each once, and keeps the outcome in a report."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from simsiam_tf.data.images.decode import decode
from simsiam_tf.data.images.header_check import read_image_file
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.atomic_files import atomic_write_text
from simsiam_tf.runtime.display_text import printable_text

_OUTCOME = re.compile(r"- .|\d+-[0-9a-f]{16}$")  # others are checked again
UNREADABLE = "- "  # begins an outcome that is the reason why an image does not decode; others are digests


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
) -> tuple[dict[str, str], bool]:
    """Decodes the images that are new, or changed since the report was written.

    Returns ({name: outcome}, whether the report has them). An outcome is the digest of the file, or
    `UNREADABLE` and the reason why it does not decode.
    """
    states = {name: _file_state(os.path.join(root, name)) for name in names}
    before = _read_report(report, names, max_megapixels)
    outcomes = {name: before[name][1] for name in names if before.get(name, ("",))[0] == states[name]}
    unchecked = [name for name in names if name not in outcomes]
    outcomes |= zip(unchecked, _check_files(root, unchecked, max_megapixels), strict=True)
    _print_changes(before, outcomes, shown, report)
    written = report is not None
    if report and (unchecked or len(before) != len(names)):
        images = {name: f"{states[name]} {outcomes[name]}" for name in names}
        written = _write_report(report, max_megapixels, images)
    return outcomes, written


def _file_state(path: str) -> str:
    """A file's size and times, which differ once it was written to or replaced."""
    # NOTE: nobody can set ctime, so that it also shows a change after which mtime was set back.
    try:
        status = os.stat(path)
        return f"{status.st_size},{status.st_mtime_ns},{status.st_ctime_ns}"
    except OSError:  # such as a link that leads nowhere
        return "missing"


def _check_files(root: Path, names: list[str], max_megapixels: float) -> Iterator[str]:
    """The outcome of each image."""
    if not names:
        return
    outcome = functools.partial(_outcome, max_megapixels=max_megapixels)
    dataset = tf.data.Dataset.from_tensor_slices([os.fsencode(root / name) for name in names])
    dataset = dataset.map(lambda path: tf.numpy_function(outcome, [path], tf.string), tf.data.AUTOTUNE)
    for text in progress.bar(dataset.as_numpy_iterator(), "checking images", total=len(names)):
        yield text.decode(errors="replace")


def _outcome(path: bytes, max_megapixels: float) -> bytes:
    try:
        data = read_image_file(path, max_megapixels)
        if 0 not in decode(tf.constant(data)).shape:
            return file_digest(data)
        reason = "no pixels"
    except (OSError, ValueError, tf.errors.OpError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or "unreadable"
    return f"{UNREADABLE}{reason.splitlines()[0][:200]}".encode(errors="replace")


def _print_changes(before: dict, outcomes: dict[str, str], shown: str, report: Path | None) -> None:
    """Says which images have other contents than the report."""
    both = [name for name in outcomes if name in before]
    changed = [name for name in both if before[name][1] != outcomes[name]]
    counts = {"changed": len(changed), "new": len(outcomes) - len(both), "gone": len(before) - len(both)}
    if both and any(counts.values()):
        example = f", such as {printable_text(changed[0])}" if changed else ""
        words = ", ".join(f"{n} {change}" for change, n in counts.items() if n)
        since = f"since {report} was written"
        print(f"{shown}: of {len(outcomes)} images, {words} {since}{example}", file=sys.stderr)


def _read_report(report: Path | None, names: list[str], max_megapixels: float) -> dict[str, tuple[str, str]]:
    """{name: (state, outcome)} of a report; empty where it is missing, damaged or of another limit."""
    limit = 2**20 + sum(12 * len(name) + 1000 for name in names) * 2  # bytes; some images may be gone
    try:
        if report is None or not report.is_file() or report.stat().st_size > limit:
            return {}
        content = json.loads(report.read_text(encoding="utf-8"))
        if content["max_megapixels"] != max_megapixels:
            return {}
        images = {name: text.partition(" ") for name, text in content["images"].items()}
        return {n: (state, outcome) for n, (state, _, outcome) in images.items() if _OUTCOME.match(outcome)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # damaged
        return {}


def _write_report(report: Path, max_megapixels: float, images: dict[str, str]) -> bool:
    """Writes {name: "STATE OUTCOME"}. Returns whether it could; a line on stderr says why not."""
    parts = {name: text.partition(f" {UNREADABLE}") for name, text in images.items()}
    reasons = {name: reason for name, (_, unreadable, reason) in parts.items() if unreadable}
    content = {"max_megapixels": max_megapixels, "unreadable": reasons, "images": images}
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
        if not report.is_file():
            report.unlink(missing_ok=True)  # a pipe, or a link that leads nowhere
        atomic_write_text(report, json.dumps(content, indent=1))
        return True
    except OSError as error:
        reason = error.strerror
        print(f"{report}: cannot be written ({reason}); images are checked again next time", file=sys.stderr)
        return False


def add_to_report(report: Path, names: list[str]) -> None:
    """Adds images that changed or disappeared after their check to a report's unreadable ones."""
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
        # No file has the state "changed", so that these are checked again.
        reason = f"changed {UNREADABLE}changed or disappeared while its features were made"
        _write_report(report, content["max_megapixels"], content["images"] | dict.fromkeys(names, reason))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
