"""From the images of a place to a source: the check, the number of channels, the range of deep pixels."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from simsiam_tf.config.images import check_range
from simsiam_tf.data.images.decode import decode_checked
from simsiam_tf.data.images.header import check_size
from simsiam_tf.data.images.render import PixelRule, deep_values, type_range
from simsiam_tf.data.sources.addresses import read_bytes
from simsiam_tf.data.sources.base import EncodedSource, SourceOptions, digest_of_pieces, lines
from simsiam_tf.data.sources.file_records import Changes, FileRecords, file_records
from simsiam_tf.data.sources.members import Members, file_digest
from simsiam_tf.data.sources.run_images import as_recorded, read_or_next
from simsiam_tf.runtime.atomic_files import atomic_write_text
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

RANGE_SAMPLE = 64  # deep images whose values decide the range
VALUES_PER_IMAGE = 2**14  # of each of them
PERCENTILES = (0.1, 99.9)


def open_members(members: Members, options: SourceOptions) -> EncodedSource:
    """The source of a place's images.

    A line on stderr says which images are left out, and which have changed since they were last checked.

    Raises:
        UserError: unreadable images with on_bad_image="error", or no readable one.
    """
    shown = printable_text(members.name)
    members, recorded, rule = as_recorded(members, options.run)
    records, changes = _records(members, options)
    rows, bad = records.rows, records.unreadable()
    if recorded is None:
        _print_changes(changes, len(members.names), shown)
        kept = np.flatnonzero(rows["reason"] == 0)
    else:  # a run keeps the places of all its images
        kept = np.arange(len(rows))
        differs = (rows["level"] > 0) & (rows["reason"] == 0) & (rows["digest"] != recorded)
        bad |= {members.names[i]: "changed since the run began" for i in np.flatnonzero(differs)}
    _report_unreadable(bad, len(members.names), shown, options)
    if len(bad) == len(members.names):
        raise UserError(f"{shown}: not one of its images can be decoded.")
    names = tuple(members.names[i] for i in kept)
    rows = rows if len(kept) == len(rows) else rows[kept]
    if rule is None:
        rule = PixelRule(_channels(rows, options, shown), options.background)
        pixel_range = _pixel_range(members, kept, rows, rule, options, shown)
        rule = dataclasses.replace(rule, pixel_range=pixel_range)
    labels = _labels(members, kept, shown)
    checked = bool((rows["level"] > 0).all())
    digests = rows["digest"] if checked else np.array([b"%d-%d" % (r["size"], r["mtime"]) for r in rows])
    read, chosen = members.read_op or _python_read(members.read), tf.constant(kept, tf.int64)
    if options.run:  # which must not read changed files in silence
        read = _python_read(members.read)
    if options.run and options.on_bad_image == "skip":
        read = _python_read(read_or_next(members, rule, {int(i) for i in kept if members.names[i] in bad}))
    return EncodedSource(
        members.name, len(kept), rule.channels, labels, members.class_names if labels is not None else (),
        fingerprint=digest_of_pieces(lines(names)),
        read=lambda index: read(tf.gather(chosen, index)), names=names,
        root=members.root if checked else None, digests=digests if recorded is None else recorded, rule=rule,
        headers=rows if checked else None, unreadable=dict(collections.Counter(bad.values())),
        reads_at_once=members.reads_at_once,
    )  # fmt: skip


def _python_read(read: Callable[[int], bytes]) -> Callable[[tf.Tensor], tf.Tensor]:
    def read_op(index: tf.Tensor) -> tf.Tensor:
        data = tf.numpy_function(lambda i: read(int(i)), [index], tf.string)
        return tf.ensure_shape(data, [])

    return read_op


def _records(members: Members, options: SourceOptions) -> tuple[FileRecords, Changes]:
    decoding = threading.BoundedSemaphore(os.cpu_count() or 1)  # more images may be read at a time

    def check(i: int) -> dict:
        check_size(members.size(i), members.names[i], options.max_megapixels)  # before it is read
        data = members.read(i)
        with decoding:
            header = decode_checked(data, options.max_megapixels, decode_pixels=options.check == "decode")
        fields = dataclasses.asdict(header)
        return {**fields, "format": header.format.encode(), "digest": file_digest(data)}

    key = f"{members.key}\0{options.max_megapixels}"
    return file_records(key, members.names, members.states, options.check, check, members.reads_at_once)


def _print_changes(changes: Changes, size: int, shown: str) -> None:
    counts = {"changed": len(changes.changed), "new": changes.new, "gone": changes.gone}
    if counts["new"] == size or not any(counts.values()):
        return
    such = f", such as {printable_text(changes.changed[0])}" if changes.changed else ""
    words = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
    print(f"{shown}: of {size} images, {words} since they were last checked{such}", file=sys.stderr)


def _report_unreadable(bad: dict[str, str], size: int, shown: str, options: SourceOptions) -> None:
    """Writes the report, and refuses or names unreadable images."""
    named = bool(bad and options.report and _write_report(options.report, bad))
    if not bad:
        return
    reasons = collections.Counter(bad.values())
    listed = "; ".join(f"{n} × {reason}" for reason, n in reasons.most_common(3))
    name = next(iter(bad))
    text = f"{shown}: {len(bad)} of {size} images"
    such = f"such as {printable_text(name)} ({bad[name]})" if len(reasons) == 1 or len(bad) < 4 else listed
    if options.on_bad_image == "error":
        all_named = f" All are named in {options.report}." if named else ""
        raise UserError(
            f"{text} cannot be decoded, {such}.{all_named} Mend or remove them, or pass on_bad_image=skip."
        )
    print(f"{text} left out{f'; named in {options.report}' if named else f', {such}'}", file=sys.stderr)


def _write_report(report: Path, bad: dict[str, str]) -> bool:
    """Whether the report could be written; a line on stderr says why not."""
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
        if not report.is_dir() and not report.is_file():  # a pipe or a device
            report.unlink(missing_ok=True)
        atomic_write_text(report, json.dumps({"unreadable": bad}, indent=1))
        return True
    except OSError as error:
        print(f"{report}: cannot be written ({error.strerror})", file=sys.stderr)
        return False


def add_to_report(report: Path, names: Sequence[str]) -> None:
    """Adds images that changed or disappeared after their check to a report of unreadable ones."""
    try:
        bad = {**json.loads(read_bytes(str(report)))["unreadable"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        bad = {}
    _write_report(
        report, {**bad, **dict.fromkeys(names, "changed or disappeared while its features were made")}
    )


def _labels(members: Members, kept: np.ndarray, shown: str) -> np.ndarray | None:
    """Labels of the images that are left, if all have one and there are at least two classes."""
    if members.labels is None or len(members.class_names) < 2:
        return None
    labels = members.labels[kept]
    without = np.flatnonzero(labels < 0)
    if len(without):
        name = printable_text(members.names[kept[without[0]]])
        print(
            f"{shown}: no labels, since {len(without)} of {len(kept)} images have none: {name}"
            f"{', …' * (len(without) > 1)}. If the folders are classes, move the images into them, or away.",
            file=sys.stderr,
        )
        return None
    return labels


def _channels(rows: np.ndarray, options: SourceOptions, shown: str) -> int:
    """As asked for; else 1 for a set of gray images, their number for images of several, and 3 for others."""
    if options.channels:
        return options.channels
    numbers = set(rows["channels"].tolist()) if rows["level"].all() else {3}
    if len(numbers) == 1:
        return numbers.pop()
    if numbers <= {1, 3}:
        return 3
    listed = ", ".join(f"{(rows['channels'] == n).sum()} of {n}" for n in sorted(numbers))
    raise UserError(
        f"{shown}: images of different channels: {listed}. Pass channels=3, which takes gray and colour "
        "images, and leave out the others with on_bad_image=skip; or train on each kind by itself."
    )


def _pixel_range(
    members: Members, kept: np.ndarray, rows: np.ndarray, rule: PixelRule, options: SourceOptions, shown: str
) -> tuple[float, float] | None:
    """The values of deep pixels that become 0 and 255, as options.pixel_range says; None without any."""
    deep = np.flatnonzero(rows["bits"] > 8)
    if not len(deep) or options.pixel_range == "type":
        return None
    if options.pixel_range != "auto":
        return check_range(options.pixel_range)
    sample = deep[np.linspace(0, len(deep) - 1, min(len(deep), RANGE_SAMPLE)).astype(int)]
    values = []
    for i in kept[sample]:
        pixels = deep_values(members.read(int(i)), rule.channels)
        if pixels is not None:
            flat = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels.ravel()
            values.append(flat[:: max(1, flat.size // VALUES_PER_IMAGE)].astype(np.float64))
    low, high = np.percentile(np.concatenate(values), PERCENTILES) if values else type_range(np.dtype("u2"))
    if not low < high:
        low, high = low - 0.5, low + 0.5
    print(
        f"{shown}: {len(deep)} of {len(rows)} images have more than 8 bits a channel. Their values from "
        f"{low:g} to {high:g} become 0 to 255 ({PERCENTILES[0]} and {PERCENTILES[1]} percentiles of "
        f"{len(sample)} images). pixel_range=LOW,HIGH chooses others.",
        file=sys.stderr,
    )
    return float(low), float(high)


def header_summary(source: EncodedSource) -> dict[str, str]:
    """What the headers of a source's images say, by subject; empty where they are not known."""
    rows = source.headers
    if rows is None:
        return {}
    turned = np.isin(rows["orientation"], (5, 6, 7, 8))
    width, height = (
        np.where(turned, rows[a], rows[b]) for a, b in (("height", "width"), ("width", "height"))
    )
    order = np.argsort(width.astype(np.int64) * height)
    sizes = [f"{width[i]}×{height[i]}" for i in (order[0], order[len(order) // 2], order[-1])]
    counts = {
        "formats": _counted(name.decode() for name in rows["format"].tolist()),
        "sizes": sizes[0]
        if np.ptp(width) == np.ptp(height) == 0
        else "{} to {}, median {}".format(*np.take(sizes, (0, 2, 1))),
        "channels": _counted(
            {1: "gray", 3: "colour"}.get(n, f"{n} channels") for n in rows["channels"].tolist()
        ),
        "more than 8 bits": _counted(f"{n} bits" for n in rows["bits"].tolist() if n > 8),
        "turned by EXIF": _counted(f"orientation {n}" for n in rows["orientation"].tolist() if n > 1),
        "transparent": _counted("on " + source.rule.background for t in rows["transparent"].tolist() if t),
        "unreadable": "; ".join(f"{n} × {reason}" for reason, n in source.unreadable.items()),
    }
    return {subject: text for subject, text in counts.items() if text}


def _counted(texts: Iterable[str]) -> str:
    """Numbers of equal texts, the most frequent first."""
    return ", ".join(f"{n} × {text}" for text, n in collections.Counter(texts).most_common())


def odd_images(source: EncodedSource) -> np.ndarray:
    """Ids of images to look at first: turned, transparent, deep, or of a profile or format of their own."""
    rows = source.headers
    if rows is None:
        return np.arange(0)
    kinds = [rows["transparent"], rows["orientation"] > 1, rows["bits"] > 8, ~rows["plain"]]
    firsts = [np.flatnonzero(kind)[:2] for kind in kinds]  # two of each kind, then all others
    return np.array(
        list(dict.fromkeys(np.concatenate([*firsts, *map(np.flatnonzero, kinds)]).tolist())), np.int64
    )
