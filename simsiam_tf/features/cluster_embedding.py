"""Embeddings of a set by a Ray cluster, into a folder of Parquet files; interrupted work continues."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simsiam_tf.data.sources.base import SourceOptions
from simsiam_tf.data.sources.open_source import list_images
from simsiam_tf.data.sources.unreadable import report_unreadable
from simsiam_tf.distributed import ray_actors
from simsiam_tf.features import embedding_shards
from simsiam_tf.features.embedding_file import write_errors
from simsiam_tf.features.shard_worker import ShardJob, ShardWorker, content_digest, plan_shards
from simsiam_tf.pretrained.pretrained_backbone import Pretrained
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError


def embed_by_cluster(
    pretrained: Pretrained,
    preprocessing: dict[str, Any],
    data: str,
    options: SourceOptions,
    out: Path,
    report: Path,
    address: str,
    cores: int | None = None,
    batch_size: int = 256,
    shard_images: int = 8192,
    dtype: str = "float32",
    fast: bool = False,
    overwrite: bool = False,
) -> int:
    """Writes embeddings of all images that a specification names; returns the number of embeddings.

    Args:
        pretrained: the backbone, opened with `preprocessing`, arguments of `open_pretrained`. All machines of
            the cluster must have it at `pretrained.place`, and the images at the same place as this one.
        data, options: the images, for `list_images`.
        out: folder of the Parquet files (`embedding_shards`). report: JSON file of unreadable images.
        address, cores: as for `ray_actors.joined_cluster` and `ray_actors.actor_size`.
        batch_size: images at a time. shard_images: images of a file, a multiple of it.
        dtype: type of the numbers in the files. fast: as for `image_embeddings.embed`.
        overwrite: whether files of other weights, images or options in `out` are removed.

    Raises:
        UserError: `out` holds other files, an image cannot be read with on_bad_image="error", or the
            cluster, the weights or the images are missing.
    """
    ray_actors.import_ray(address)
    images = list_images(data, options)
    shards = plan_shards(pretrained, images, options, shard_images, dtype, fast)
    contents = [content_digest(images, shards.images_of(number)) for number in range(shards.count)]
    del images  # its names would be in memory twice on this machine
    with write_errors(out):
        missing = embedding_shards.missing_shards(out, shards, contents, overwrite)
    job = ShardJob(
        os.getcwd(), pretrained.place, preprocessing, data, options, shards, contents, out.absolute(),
        batch_size, fast,
    )  # fmt: skip
    if missing:
        _compute(job, missing, address, cores)
    rows, bad = embedding_shards.finish_shards(out, shards)
    shown = printable_text(data)
    report_unreadable(
        bad, shards.images, shown, SourceOptions(on_bad_image=options.on_bad_image, report=report)
    )
    if not rows:
        raise UserError(f"{shown}: not one of its images can be decoded.")
    return rows


def _compute(job: ShardJob, missing: list[int], address: str, cores: int | None) -> None:
    sizes = {number: len(job.shards.images_of(number)) for number in missing}
    total = job.shards.images
    name = f"features of {printable_text(job.data)}"
    with (
        ray_actors.joined_cluster(address) as ray,
        progress.bar(None, name, total=total, initial=total - sum(sizes.values()), unit="image") as bar,
    ):
        for number in ray_actors.run_items(ray, functools.partial(_start_worker, job), missing, cores):
            bar.update(sizes[number])


def _start_worker(job: ShardJob, cores: int | None) -> Callable[[int], None]:
    return ShardWorker(job, cores).compute
