"""From the images of a place to a source: the check, the number of channels, the range of deep pixels."""

from __future__ import annotations

import collections
import dataclasses
import sys
import threading
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from simsiam_tf.config.images import check_range
from simsiam_tf.data.images.decode import decode_checked
from simsiam_tf.data.images.deep_pixels import deep_values, type_range
from simsiam_tf.data.images.header import check_size
from simsiam_tf.data.images.render import PixelRule
from simsiam_tf.data.sources.base import EncodedSource, SourceOptions, digest_of_pieces, lines
from simsiam_tf.data.sources.file_records import Changes, FileRecords, file_records
from simsiam_tf.data.sources.members import Members, changed_file, file_digest
from simsiam_tf.data.sources.run_images import as_recorded, read_or_next
from simsiam_tf.data.sources.unreadable import report_unreadable
from simsiam_tf.runtime import cores
from simsiam_tf.runtime.display_text import counted, printable_text
from simsiam_tf.runtime.errors import UserError

RANGE_SAMPLE = 64  # deep images whose values decide the range
VALUES_PER_IMAGE = 2**14  # about, from each of them
PERCENTILES = (0.1, 99.9)


def open_members(members: Members, options: SourceOptions) -> EncodedSource:
    """The source of a place's images, which are checked.

    Lines on stderr say how many images are left out, and how many have changed since they were last checked.

    Raises:
        UserError: unreadable images with on_bad_image="error", no readable one, or mixed numbers of channels.
    """
    shown = printable_text(members.name)
    members, recorded, rule = as_recorded(members, options.run)
    records, changes = check_members(members, options)
    rows, bad = records.rows, records.unreadable()
    if recorded is None:
        _print_changes(changes, len(members.names), shown)
        other = _has_other_channels(rows, options.channels)
        for i in np.flatnonzero(other):
            bad[members.names[i]] = (
                f"it has {counted(rows['channels'][i], 'channel')}, not {options.channels}"
            )
        kept = np.flatnonzero((rows["reason"] == 0) & ~other)
    else:  # a run that continues keeps the places of all its images
        kept = np.arange(len(rows))
        differs = (rows["level"] > 0) & (rows["reason"] == 0) & (rows["digest"] != recorded)
        bad |= {members.names[i]: "changed since the run began" for i in np.flatnonzero(differs)}
    report_unreadable(bad, len(members.names), shown, options, recorded is not None)
    if len(bad) == len(members.names):
        raise UserError(f"{shown}: not one of its images can be decoded.")
    all_kept = len(kept) == len(rows)
    names = tuple(members.names if all_kept else (members.names[i] for i in kept))
    rows = rows if all_kept else rows[kept]
    if rule is None:
        rule = PixelRule(_channels(rows, options, shown), options.background)
        pixel_range = range_of(members, kept, rows, rule.channels, options, shown)
        rule = dataclasses.replace(rule, pixel_range=pixel_range)
    labels = _labels(members, kept, shown, options.partial_labels)
    checked = bool((rows["level"] > 0).all())
    digests = rows["digest"] if checked else np.array([b"%d-%d" % (r["size"], r["mtime"]) for r in rows])
    read = members.read_op or _python_read(members.read)
    if options.run:  # a run must not read a changed file in silence
        members = dataclasses.replace(members, read=_read_unchanged(members, records.rows["digest"]))
        read = _python_read(members.read)
    if options.run and options.on_bad_image == "skip":
        read = _python_read(read_or_next(members, rule, {int(i) for i in kept if members.names[i] in bad}))
    if not all_kept:
        read = _read_chosen(read, kept)
    return EncodedSource(
        members.name, len(kept), rule.channels, labels, members.class_names if labels is not None else (),
        fingerprint=digest_of_pieces(lines(names)),
        read=read, names=names,
        root=members.root if checked else None, digests=digests if recorded is None else recorded, rule=rule,
        headers=rows if checked else None, unreadable=dict(collections.Counter(bad.values())),
        reads_at_once=members.reads_at_once,
    )  # fmt: skip


def _read_unchanged(members: Members, digests: np.ndarray) -> Callable[[int], bytes]:
    """`members.read`, raising OSError where an image has another digest than here; b"": not known."""

    def read(i: int) -> bytes:
        data = members.read(i)
        if digests[i] and file_digest(data) != digests[i]:
            raise changed_file(members.names[i])
        return data

    return read


def _read_chosen(read: Callable[[tf.Tensor], tf.Tensor], ids: np.ndarray) -> Callable[[tf.Tensor], tf.Tensor]:
    """`read` of the images ids[0], ids[1], …, numbered from 0."""
    chosen = tf.constant(ids, tf.int64)
    return lambda index: read(tf.gather(chosen, index))


def _python_read(read: Callable[[int], bytes]) -> Callable[[tf.Tensor], tf.Tensor]:
    def read_op(index: tf.Tensor) -> tf.Tensor:
        data = tf.numpy_function(lambda i: read(int(i)), [index], tf.string)
        return tf.ensure_shape(data, [])

    return read_op


def check_members(members: Members, options: SourceOptions) -> tuple[FileRecords, Changes]:
    """Checks the images of a place as options.check says, or takes what the user's cache knows of them."""
    decoding = threading.BoundedSemaphore(cores.decoding_threads())  # more images may be read

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
    print(
        f"{shown}: of {counted(size, 'image')}, {words} since they were last checked{such}", file=sys.stderr
    )


def _labels(members: Members, kept: np.ndarray, shown: str, partial: bool) -> np.ndarray | None:
    """Labels of the images that are left, if there are at least two classes and all, or some, have one."""
    if members.labels is None or len(members.class_names) < 2:
        return None
    labels = members.labels[kept]
    without = np.flatnonzero(labels < 0)
    if len(without) and not partial:
        name = printable_text(members.names[kept[without[0]]])
        unused, have = "labels are not used", "have"
        if members.root is not None:
            unused, have = "names of sub-folders are not used as labels", "lie in"
        print(
            f"{shown}: {unused}, since {len(without)} of {len(kept)} images {have} none: {name}"
            f"{', …' * (len(without) > 1)}. Training needs no labels.",
            file=sys.stderr,
        )
        return None
    return labels


def _has_other_channels(rows: np.ndarray, channels: int | None) -> np.ndarray:
    """Whether each readable image has other channels than these; gray and colours become each other."""
    if channels is None:
        return np.zeros(len(rows), bool)
    fitting = [1, 3] if channels in (1, 3) else [channels]
    return (rows["level"] > 0) & (rows["reason"] == 0) & ~np.isin(rows["channels"], fitting)


def _channels(rows: np.ndarray, options: SourceOptions, shown: str) -> int:
    """options.channels; else the number that all images have; else 3: gray with colours, or unchecked."""
    if options.channels:
        return options.channels
    numbers = set(rows["channels"].tolist()) if rows["level"].all() else {3}
    if len(numbers) == 1:
        return numbers.pop()
    if numbers <= {1, 3}:
        return 3
    listed = ", ".join(f"{(rows['channels'] == n).sum()} of {n}" for n in sorted(numbers))
    raise UserError(
        f"{shown}: images of different channels: {listed}. Pass channels=3 on_bad_image=skip to take "
        "gray and colour images alone, or another number."
    )


def range_of(
    members: Members, kept: np.ndarray, rows: np.ndarray, channels: int, options: SourceOptions, shown: str
) -> tuple[float, float] | None:
    """The values of deep pixels that become 0 and 255; None: no such pixels, or the limits of their type.

    kept: numbers of the members that are used. rows: their records. shown: name of the images, for messages.
    """
    deep = np.flatnonzero(rows["bits"] > 8)
    if not len(deep) or options.pixel_range == "type":
        return None
    if options.pixel_range != "auto":
        return check_range(options.pixel_range)
    sample = deep[np.linspace(0, len(deep) - 1, min(len(deep), RANGE_SAMPLE)).astype(int)]
    values = []
    for i in kept[sample]:
        try:
            pixels = deep_values(members.read(int(i)), channels)
        except (OSError, ValueError):  # changed or gone since its check
            continue
        if pixels is not None:
            flat = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels.ravel()
            values.append(flat[:: max(1, flat.size // VALUES_PER_IMAGE)].astype(np.float64))
    low, high = np.percentile(np.concatenate(values), PERCENTILES) if values else type_range(np.dtype("u2"))
    if not low < high:
        low, high = low - 0.5, low + 0.5
    print(
        f"{shown}: images of more than 8 bits a channel: {len(deep)} of {len(rows)}. Their values from "
        f"{low:g} to {high:g} become 0 to 255 ({PERCENTILES[0]} and {PERCENTILES[1]} percentiles of "
        f"{len(sample)} of them). --pixel_range=LOW,HIGH chooses others.",
        file=sys.stderr,
    )
    return float(low), float(high)
