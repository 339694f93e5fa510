"""Monitors a pre-training by the kNN accuracy on labelled images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf.data import Augmentation, Source, Views, open_source, pipeline
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate import finishing
from simsiam_tf.evaluate.label_free import LabelFreeMonitor
from simsiam_tf.evaluate.label_splits import check_labels, check_same_kind, held_out_ids, open_test_split
from simsiam_tf.features import extraction
from simsiam_tf.features.knn import knn_accuracy
from simsiam_tf.nets.whitening import read_quarters
from simsiam_tf.runtime.display_text import counted
from simsiam_tf.runtime.errors import UserError

KS = (20, 200)
GATHERED_IMAGES = 2**14  # images whose features a worker sends to the others at a time
TIME_SHARE = 0.01  # share of the training's time that the monitor may take
# Images that can be evaluated in the time that training takes for one view. Gradients take twice as long as a
# forward pass, which would make it three; but an evaluation also reads images, traces and votes.
IMAGES_PER_VIEW = 2
SourceEncoder = Callable[[Source, np.ndarray], np.ndarray]  # (source, ids) → features [N, F]


@dataclasses.dataclass(frozen=True)
class Monitor:
    """A bank of labelled images that vote, and the queries that they classify (Sec. 4.1).

    bank, queries: the sources of both. bank_ids, query_ids: ids of the images that are used.
    views: makes the evaluation views.
    workers: processes among which the images are divided; None: this process alone.
    """

    bank: Source
    bank_ids: np.ndarray
    queries: Source
    query_ids: np.ndarray
    views: Views
    workers: Workers | None = None

    title = "kNN accuracy"
    deciding = "knn20"
    views_per_image = 1

    @property
    def source(self) -> Source:
        """The images of the bank."""
        return self.bank

    def queries_of(self, images: int | None = None) -> int:
        """The number of queries of an evaluation on `images` images (None: all)."""
        return len(self.sample(images)[1])

    def accuracy(
        self, encode: SourceEncoder, images: int | None = None, shrinkage: float | None = None
    ) -> dict[str, float]:
        """{"knn20": …, "knn200": …} in [0, 1]; only "knn20" where the bank has fewer than 200 images.

        encode: computes features of images.
        images: about how many images to use, five sixths of them in the bank; all when None.
        shrinkage: least shrinkage of a whitening of the features, which is fitted to the bank; None: no
            whitening. The result is {} where features to whiten do not vary.
        """
        bank_ids, query_ids = self.sample(images)
        team = self.workers or Workers(tf.distribute.get_strategy())
        bank = self._bank_features(encode, bank_ids, team)
        fitted = None
        if shrinkage is not None:
            sample = finishing.sample_rows(bank)
            fitted = finishing.fit_whitening(sample, finishing.chosen_shrinkage(sample, shrinkage))
            if fitted is None:
                return {}
        shard = team.shard(query_ids)
        ks = [k for k in KS if k == KS[0] or k <= len(bank_ids)]
        right = dict.fromkeys(ks, 0.0)
        if len(shard):
            assert self.bank.labels is not None and self.queries.labels is not None
            queries = encode(self.queries, shard)
            bank, queries = (fitted(f, in_place=True) if fitted else f for f in (bank, queries))
            right = knn_accuracy(bank, self.bank.labels[bank_ids], queries, self.queries.labels[shard], ks)
        counts = team.all_gather(np.rint([[len(shard) * a for a in right.values()]])).sum(axis=0)
        return {f"knn{k}": count / len(query_ids) for k, count in zip(right, counts.tolist(), strict=True)}

    def _bank_features(self, encode: SourceEncoder, ids: np.ndarray, team: Workers) -> np.ndarray:
        """The bank's features [N, F] on every worker, each of which extracts its share of them."""
        if team.count == 1:
            return encode(self.bank, ids)

        def features(chunk: np.ndarray) -> np.ndarray:
            shard = team.shard(chunk)
            return team.all_gather(encode(self.bank, shard if len(shard) else chunk[:1])[: len(shard)])

        chunks = np.array_split(ids, math.ceil(len(ids) / (GATHERED_IMAGES * team.count)))
        return extraction.concatenate_blocks(map(features, chunks), len(ids))

    def backbone_accuracy(
        self, backbone: keras.Model, images: int | None = None, read_size: int | None = None
    ) -> dict[str, float]:
        """`accuracy` of a backbone's features.

        read_size: side in pixels of the images that finished features are read from; with it, the result also
            has their accuracy: "whitened_knn20", ….
        """

        def encoder(network: keras.Model, views: Views) -> SourceEncoder:
            return lambda source, ids: extraction.extract(network, source, views, ids)

        accuracy = self.accuracy(encoder(backbone, self.views), images)
        if read_size is None:
            return accuracy
        views, network = finishing.reading_views(self.views, read_size), read_quarters(backbone, read_size)
        return accuracy | _whitened(self.accuracy(encoder(network, views), images, finishing.SHRINKAGE))

    def pixel_accuracy(self, images: int | None = None, whiten: bool = False) -> dict[str, float]:
        """`accuracy` of raw pixels; with `whiten` also of whitened pixels of images of `pixel_side`."""

        def encoder(side: int | None) -> SourceEncoder:
            return lambda source, ids: extraction.raw_pixels(source, self.views, ids, side)

        accuracy = self.accuracy(encoder(None), images)
        if not whiten:
            return accuracy
        side = finishing.pixel_side(self.views.augmentation.size, self.bank.channels)
        return accuracy | _whitened(self.accuracy(encoder(side), images, finishing.PIXEL_SHRINKAGE))

    def baselines(
        self, untrained: keras.Model | None, images: int | None = None, read_size: int | None = None
    ) -> dict[str, dict[str, float]]:
        """`accuracy` of the baselines: "raw pixels" and, where it is given, "untrained backbone".

        images: as for `accuracy`. read_size: as for `backbone_accuracy`; with it, pixels are whitened, too.
        """
        pixels = {"raw pixels": self.pixel_accuracy(images, read_size is not None)}
        if untrained is None:
            return pixels
        return pixels | {"untrained backbone": self.backbone_accuracy(untrained, images, read_size)}

    def sample(self, images: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Evenly spaced ids of about `images` images, as (bank, queries); of all images when None."""
        if images is None:
            return self.bank_ids, self.query_ids
        return _evenly_spaced(self.bank_ids, images * 5 // 6), _evenly_spaced(self.query_ids, images // 6)

    def size(self, images: int | None = None) -> int:
        """The number of images that `sample` returns."""
        return sum(len(ids) for ids in self.sample(images))


def epochs_between(images: int, views: int) -> int:
    """Epochs between evaluations, such that these take at most TIME_SHARE of the time.

    images: number of images of an evaluation. views: number of views that an epoch trains on.
    """
    return max(1, math.ceil(images / (TIME_SHARE * IMAGES_PER_VIEW * views)))


def open_monitor(
    spec: str,
    queries: str,
    views: Views,
    source: Source,
    data_spec: str,
    options: Mapping[str, Any] | None = None,
    workers: Workers | None = None,
) -> Monitor | LabelFreeMonitor | None:
    """Opens the monitor that the options `monitor` and `monitor_queries` name; None for "none".

    Args:
        spec: a labelled set, "none", or "auto": the pre-training set, for which the monitor is a
            `LabelFreeMonitor` if it has no labels.
        queries: a labelled set, or "auto" for the bank's test or validation split, or, where it has none or
            `spec` names images of it, every tenth image of the bank.
        views, workers: as in `Monitor`.
        source, data_spec: the pre-training set and its specification.
        options: the arguments of `open_source` that the pre-training set was opened with.

    Raises:
        UserError: a set without labels, or sets of different classes or channels.
    """
    options = {**(options or {}), "channels": source.channels}
    if spec == "none":
        return None
    if spec == "auto" and source.labels is None:
        if queries != "auto":
            raise UserError(
                f"monitor_queries={queries}: the images to learn from have no labels to compare with. Pass "
                "labelled images of the same kind as `monitor`."
            )
        return LabelFreeMonitor(source, views)
    if spec in ("auto", data_spec):
        bank, spec = source, data_spec
    else:
        bank = open_source(spec, "train", **options)
    if queries == "auto":
        query_source = open_test_split(spec, bank, **options)
    else:
        query_source = open_source(queries, "test", **options)
    if query_source is None:
        query_source, (bank_ids, query_ids) = bank, held_out_ids(bank)
    else:
        bank_ids, query_ids = np.arange(bank.size), np.arange(query_source.size)
    check_same_kind(bank, query_source, "monitor_queries")
    for name, images in (("monitor", bank), ("monitor_queries", query_source)):
        check_labels(images, name, ", or monitor=none")
        if images.channels != source.channels:
            raise UserError(
                f"{name}={images.name}: has {counted(images.channels, 'channel')}, the images to learn from "
                f"have {source.channels}. Give a set of the same kind, or monitor=none."
            )
    return Monitor(bank, bank_ids, query_source, query_ids, views, workers)


def monitor_of(spec: str, augmentation: str | Augmentation | None = None, **changes: Any) -> Monitor:
    """The monitor of a labelled set, whose training images are the bank and whose test images the queries.

    spec: the set, as for `open_source`. augmentation, **changes: as for `pipeline.augmentation_of`.

    Raises:
        UserError: there is no such set, or it has no labels.
    """
    source = open_source(spec)
    views = Views(pipeline.augmentation_of(source, augmentation, **changes))
    monitor = open_monitor(spec, "auto", views, source, spec)
    assert isinstance(monitor, Monitor)
    return monitor


def _whitened(accuracy: dict[str, float]) -> dict[str, float]:
    return {f"whitened_{name}": value for name, value in accuracy.items()}


def _evenly_spaced(ids: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the ids, but at least one."""
    count = min(max(count, 1), len(ids))
    return ids[np.arange(count) * len(ids) // count]
