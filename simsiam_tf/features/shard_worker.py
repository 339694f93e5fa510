"""Embeddings of a range of a set's images, by one of many processes that share the set."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import tensorflow as tf

from simsiam_tf.data import Source, pipeline, subset
from simsiam_tf.data.sources.base import EncodedSource, SourceOptions, digest_of_pieces, lines, short_digest
from simsiam_tf.data.sources.checked_source import open_members
from simsiam_tf.data.sources.members import Members
from simsiam_tf.data.sources.open_source import list_images
from simsiam_tf.data.sources.unreadable import add_to_report
from simsiam_tf.distributed.strategies import set_precision
from simsiam_tf.features import changed_files, embedding_file, extraction
from simsiam_tf.features.changed_files import ChangedImages
from simsiam_tf.features.embedding_shards import Shards, write_shard
from simsiam_tf.features.fast import fold, shrink_images
from simsiam_tf.features.image_embeddings import embedding_metadata
from simsiam_tf.features.store import PREPROCESSING_VERSION, check_finite
from simsiam_tf.pretrained.pretrained_backbone import Pretrained, open_pretrained
from simsiam_tf.runtime import cores as core_limit
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """The task of computing shards, which can be sent to other machines.

    folder: working folder of relative paths, on machines where it exists.
    weights, preprocessing: arguments of `open_pretrained`.
    data, options: the images, for `list_images`.
    shards: how the images are divided.
    contents: a digest of the images of each shard.
    out: folder of the shards' files.
    batch_size: images at a time.
    fast: as for `image_embeddings.embed`.
    """

    folder: str
    weights: str
    preprocessing: dict[str, Any]
    data: str
    options: SourceOptions
    shards: Shards
    contents: list[str]
    out: Path
    batch_size: int
    fast: bool = False


def plan_shards(
    pretrained: Pretrained,
    images: Source | Members,
    options: SourceOptions,
    shard_images: int,
    dtype: str,
    fast: bool,
) -> Shards:
    """Divides images into shards, and records what their features depend on besides the files."""
    dependencies = {
        **_backbone_record(pretrained), **_place_digests(images), "channels": pretrained.channels,
        "background": options.background, "pixel_range": options.pixel_range,
        "max_megapixels": options.max_megapixels, "fast": fast, "preprocessing": PREPROCESSING_VERSION,
    }  # fmt: skip
    size = images.size if isinstance(images, Source) else len(images.names)
    return Shards(size, shard_images, pretrained.features, dtype, dependencies)


def _backbone_record(pretrained: Pretrained) -> dict[str, Any]:
    """The properties of a backbone that features depend on, as JSON."""
    size, mean, std = (getattr(pretrained.augmentation, name) for name in ("size", "mean", "std"))
    return {"sha256": pretrained.sha256, "image_size": size, "mean": list(mean), "std": list(std)}


def _place_digests(images: Source | Members) -> dict[str, str]:
    """Digests of the place of images and of their names, or of their pixels."""
    if isinstance(images, Source):
        return {"place": images.name, "names": images.contents()}
    return {"place": short_digest(os.fsencode(images.key)), "names": digest_of_pieces(lines(images.names))}


def content_digest(images: Source | Members, rows: range) -> str:
    """A digest of the names, sizes and times of the files of a range of images.

    "" for images in memory, whose contents are in `_place_digests`.
    """
    return "" if isinstance(images, Source) else images.part(rows.start, rows.stop).contents()


class ShardWorker:
    """Computes shards of a job, one after the other.

    Args:
        job: the job.
        cores: number of cores to use; None: all, as the process is.

    Raises:
        UserError: the weights or the images are not those that the job was planned with.
    """

    def __init__(self, job: ShardJob, cores: int | None = None) -> None:
        self.job = job
        if cores is not None:
            _limit_cores(cores)
        with contextlib.suppress(OSError):
            os.chdir(job.folder)
        set_precision("auto" if job.fast else "float32")
        self.pretrained = open_pretrained(job.weights, **job.preprocessing)
        self.images = list_images(job.data, job.options)
        planned = job.shards.dependencies
        backbone, place = _backbone_record(self.pretrained), _place_digests(self.images)
        for name, record in (("weights", backbone), ("data", place)):
            if any(planned[key] != value for key, value in record.items()):
                self._refuse(name)
        if job.fast:
            self.pretrained = fold(self.pretrained)

    def _refuse(self, name: str) -> NoReturn:
        raise UserError(
            f"{name}={printable_text(getattr(self.job, name))}: differs from what the command began with. "
            "Files must have the same names, sizes and times on all machines, as in a folder that they share."
        )

    def compute(self, number: int) -> None:
        """Computes a shard and writes its file.

        Raises:
            UserError: an image cannot be read, with on_bad_image="error"; the features are not finite; or the
                file cannot be written.
        """
        job, rows = self.job, self.job.shards.images_of(number)
        if content_digest(self.images, rows) != job.contents[number]:
            self._refuse("data")
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "unreadable.json"
            try:
                names, features, about = self._features(rows, report, job.options)
            except tf.errors.OpError:
                if job.options.check == "decode":
                    raise
                # The check did not decode all images; one that does names the damaged image.
                options = dataclasses.replace(job.options, check="decode")
                names, features, about = self._features(rows, report, options)
            bad = _read_report(report)
        embeddings = embedding_file.Embeddings(names, features, about)
        embedding_file.check_rounding(embeddings, np.dtype(job.shards.dtype))
        with embedding_file.write_errors(job.out):
            content = names, features, about
            write_shard(job.out, job.shards, number, job.contents[number], content, bad)

    def _features(
        self, rows: range, report: Path, options: SourceOptions
    ) -> tuple[np.ndarray, np.ndarray, dict]:
        """(names [n], features [n, F], about) of the readable images; `report` names the others."""
        source = self._source(rows, report, options)
        if source is None:
            return np.empty(0, object), np.empty((0, self.pretrained.features), np.float32), {}
        pretrained, changed = self.pretrained, set()
        pretrained.check_channels(source)
        names = np.array(getattr(source, "names", None) or [str(i) for i in rows], object)
        images = shrink_images(pretrained, source) if self.job.fast else source
        verified = changed_files.verified_source(images, changed)
        features = extraction.extract(
            pretrained.backbone, verified, pretrained.views, batch_size=self.job.batch_size
        )
        if changed:
            assert isinstance(source, EncodedSource)
            if options.on_bad_image != "skip":
                raise ChangedImages(source, changed)
            add_to_report(report, [str(names[i]) for i in sorted(changed)])
        check_finite(features, pretrained, source, 0 if getattr(source, "names", None) else rows.start)
        kept = np.setdiff1d(np.arange(len(names)), list(changed))
        return names[kept], features[kept], embedding_metadata(pretrained, source)

    def _source(self, rows: range, report: Path, options: SourceOptions) -> Source | None:
        """The readable images of a range; None where there is none."""
        if isinstance(self.images, Source):
            return subset(self.images, np.arange(rows.start, rows.stop), self.images.name)
        report.unlink(missing_ok=True)
        skip = options.on_bad_image == "skip"
        options = dataclasses.replace(options, report=report if skip else None)
        try:
            source = open_members(self.images.part(rows.start, rows.stop), options)
        except UserError as error:
            if skip and len(_read_report(report)) == len(rows):
                return None
            raise UserError(f"images {rows.start} to {rows.stop - 1} of {error}") from error
        if options.pixel_range == "auto" and source.rule.pixel_range:
            raise UserError(
                f"data={printable_text(source.name)}: has images of more than 8 bits a channel, whose range "
                "must be that of the whole set. Pass pixel_range=LOW,HIGH or pixel_range=type."
            )
        return source


def _limit_cores(cores: int) -> None:
    core_limit.take_share(cores)
    pipeline.PARALLEL = cores
    tf.config.threading.set_intra_op_parallelism_threads(cores)
    tf.config.threading.set_inter_op_parallelism_threads(cores)


def _read_report(report: Path) -> dict[str, str]:
    return json.loads(report.read_text(encoding="utf-8"))["unreadable"] if report.exists() else {}
