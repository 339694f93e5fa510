"""Scans all pictures in one pass: statistics and digests of their pixels, kept in a file."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import tensorflow as tf

from simsiam_tf.curation.statistics import FIELDS, PictureStatistics, StatisticsTable, picture_statistics
from simsiam_tf.curation.statistics import statistics_table as table_of
from simsiam_tf.data import Source
from simsiam_tf.data.mapping import map_images, with_options
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.features.changed_files import ChangedImages, verified_source
from simsiam_tf.features.feature_file import FeatureWriter, read_or_write
from simsiam_tf.runtime import cores, progress
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

VERSION = 1  # raise it when decoding or the statistics change
WORDS = 8  # 16-bit words of a digest, each of which a float32 holds exactly
BATCH = 64  # pictures between two reports of progress


@dataclasses.dataclass(frozen=True)
class Scan:
    """The results of a scan of N pictures.

    digests: [N], a digest of the size and the pixels of each picture, as text. formats: [N], file formats as
    `data.images.formats` names them. file_sizes: int64 [N], in bytes. The last two are None where pictures
    are not encoded, or were not checked.
    """

    statistics: StatisticsTable
    digests: np.ndarray
    formats: np.ndarray | None = None
    file_sizes: np.ndarray | None = None


def scan_pictures(source: Source, folder: Path) -> Scan:
    """Scans all pictures of a source, or reads the result of an earlier scan from a file in `folder`.

    Raises:
        ChangedImages: some changed or disappeared meanwhile. UserError: all did.
        OSError: the file cannot be written.
    """
    key = hashlib.sha256(f"{VERSION} {source.contents()} {source.channels}".encode()).hexdigest()[:16]
    file, shape = folder / f"pictures-{key}.npy", (source.size, len(FIELDS) + WORDS)
    rows = read_or_write(file, shape, printable_text(source.name), lambda writer: _scan(source, writer))
    numbers = np.asarray(rows[:, : len(FIELDS)], np.float64)
    sides = numbers[:, :2].astype(int)
    each = (PictureStatistics(*map(int, wh), *rest) for wh, rest in zip(sides, numbers[:, 2:], strict=True))
    words = np.asarray(rows[:, len(FIELDS) :]).astype("<u2")
    digests = np.array([row.tobytes().hex() for row in words])
    if not isinstance(source, EncodedSource) or source.headers is None:
        return Scan(table_of(each), digests)
    # NOTE: the header's size is that of the archive or table that holds the picture.
    sizes = np.array([int(digest.partition(b"-")[0] or 0) for digest in source.headers["digest"]], np.int64)
    return Scan(table_of(each), digests, source.headers["format"].astype(str), sizes)


def _scan(source: Source, writer: FeatureWriter) -> None:
    """Writes the missing rows: the statistics of a picture, then the words of its digest."""
    changed: set[int] = set()
    pictures = verified_source(source, changed)

    def row(image: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(_row, [image], tf.float32), [len(FIELDS) + WORDS])

    ids = tf.data.Dataset.range(writer.rows, source.size)
    batches = map_images(ids, pictures, row, cores.decoding_threads()).batch(BATCH)
    name = f"pictures of {printable_text(source.name)}"
    with progress.bar(None, name, total=source.size, initial=writer.rows, unit="picture") as bar:
        for batch in with_options(batches, pictures).as_numpy_iterator():
            writer.add(batch)
            bar.update(len(batch))
            if not changed:
                writer.sync_if_due()
    if changed:
        writer.discard()
        assert isinstance(source, EncodedSource)
        if len(changed) == source.size:
            raise UserError(f"{printable_text(source.name)}: all pictures changed or disappeared meanwhile.")
        raise ChangedImages(source, changed, "Pass on_bad_image=skip to leave them out.")


def _row(image: np.ndarray) -> np.ndarray:
    statistics = dataclasses.astuple(picture_statistics(image))
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=2 * WORDS)
    digest.update(np.ascontiguousarray(image).data)
    return np.array([*statistics, *np.frombuffer(digest.digest(), "<u2")], np.float32)
