"""The labelled images that a run is judged by, and the kNN accuracy on them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf.data import Source, Views, open_source
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate.label_splits import HELD_OUT, split_of
from simsiam_tf.features import extraction
from simsiam_tf.features.knn import knn_accuracy
from simsiam_tf.runtime.errors import UserError

KS = (20, 200)
LARGEST_PIXELS = 64 * 64 * 3  # values an image above which raw pixels are no baseline worth its time
PIECE = 2**14  # images a worker whose features it gives the others at a time
SHARE = 0.01  # of the training's time that the monitor may take
# Images of an evaluation that take as long as a view in training. Three would, the gradients of a layer
# taking twice its forward pass, were it not for reading, tracing and the vote.
WORTH = 2


@dataclasses.dataclass(frozen=True)
class Monitor:
    """A bank of labelled images that vote, and the queries that they classify (Sec. 4.1)."""

    bank: Source
    bank_ids: np.ndarray
    queries: Source
    query_ids: np.ndarray
    views: Views
    workers: Workers | None = None  # that share out the images; None: this process alone

    def accuracy(
        self, encode: Callable[[Source, np.ndarray], np.ndarray], images: int | None = None
    ) -> dict[str, float]:
        """{"knn20": …, "knn200": …} in [0, 1].

        Args:
            encode: (source, ids) → features [N, F].
            images: about how many images to use, five sixths of them in the bank; all when None.
        """
        bank_ids, query_ids = self.sample(images)
        team = self.workers or Workers(tf.distribute.get_strategy())
        bank = self._gathered(encode, bank_ids, team)
        asking, right = team.shard(query_ids), dict.fromkeys(KS, 0.0)
        if len(asking):
            right = knn_accuracy(
                bank, self.bank.labels[bank_ids],
                encode(self.queries, asking), self.queries.labels[asking], KS,
            )  # fmt: skip
        counts = team.all_gather(np.rint([[len(asking) * right[k] for k in KS]])).sum(axis=0)
        return {f"knn{k}": count / len(query_ids) for k, count in zip(KS, counts.tolist(), strict=True)}

    def _gathered(
        self, encode: Callable[[Source, np.ndarray], np.ndarray], ids: np.ndarray, team: Workers
    ) -> np.ndarray:
        """The bank's features [N, F] on every worker, made and shared out piece by piece."""
        if team.count == 1:
            return encode(self.bank, ids)
        shares, own = np.array_split(np.arange(len(ids)), team.count), team.shard(ids)
        whole = np.empty((0, 0), np.float32)
        for at in range(0, len(shares[0]), PIECE):
            asked = own[at : at + PIECE]
            part = team.all_gather(encode(self.bank, asked if len(asked) else ids[:1])[: len(asked)])
            if at == 0:
                whole = np.empty((len(ids), *part.shape[1:]), np.float32)
            whole[np.concatenate([share[at : at + PIECE] for share in shares])] = part
        return whole

    def of_backbone(self, backbone: keras.Model, images: int | None = None) -> dict[str, float]:
        """The accuracy of a backbone's features."""
        return self.accuracy(lambda s, ids: extraction.extract(backbone, s, self.views, ids), images)

    def of_pixels(self, images: int | None = None) -> dict[str, float] | None:
        """The accuracy of raw pixels; None where the images are too large for it."""
        if self.views.augmentation.size**2 * self.bank.channels > LARGEST_PIXELS:
            return None
        return self.accuracy(lambda s, ids: extraction.pixels(s, self.views, ids), images)

    def baselines(self, untrained: keras.Model, images: int | None = None) -> dict[str, dict[str, float]]:
        """What training has to beat: "raw pixels", where they are small, and "untrained backbone"."""
        found = {
            "raw pixels": self.of_pixels(images),
            "untrained backbone": self.of_backbone(untrained, images),
        }
        return {name: accuracy for name, accuracy in found.items() if accuracy}

    def sample(self, images: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Ids of about `images` images, evenly spaced in (bank, queries); of all when None."""
        if images is None:
            return self.bank_ids, self.query_ids
        return _thin(self.bank_ids, images * 5 // 6), _thin(self.query_ids, images // 6)

    def size(self, images: int | None = None) -> int:
        """How many images `sample` names."""
        return sum(len(ids) for ids in self.sample(images))


def epochs_between(monitored: int, trained: int) -> int:
    """Epochs between evaluations of `monitored` images that keep within SHARE of the time.

    trained: views that an epoch trains on.
    """
    return max(1, math.ceil(monitored / (SHARE * WORTH * trained)))


def open_monitor(
    spec: str,
    queries: str,
    views: Views,
    source: Source,
    data_spec: str,
    data_dir: str | None = None,
    workers: Workers | None = None,
) -> Monitor | None:
    """The monitor that `monitor` and `monitor_queries` name; None for "none".

    Args:
        spec: a labelled set, "none", or "auto" for the pre-training set where it has labels.
        queries: a labelled set, or "auto".
        views: how images are made ready.
        source, data_spec: the pre-training set and its specification.
        data_dir: as for TFDS.
        workers: that share out the images.

    Raises:
        UserError: a set without labels, or of other channels than the pre-training set.
    """
    if spec == "none" or (spec == "auto" and source.labels is None):
        return None
    own = spec in ("auto", data_spec)
    bank = source if own else open_source(spec, "train", data_dir)
    spec = data_spec if own else spec
    if queries == "auto":
        asked = split_of(spec, data_dir)
    else:
        asked = open_source(queries, "test", data_dir)
    ids = np.arange(bank.size)
    if asked is None:
        asking = ids % HELD_OUT == 0
        monitor = Monitor(bank, ids[~asking], bank, ids[asking], views, workers)
    else:
        monitor = Monitor(bank, ids, asked, np.arange(asked.size), views, workers)
    for name, part in (("monitor", monitor.bank), ("monitor_queries", monitor.queries)):
        if part.labels is None:
            raise UserError(
                f"{name}={part.name}: has no labels. Give a set with labels, a folder with one "
                "sub-folder a class, or monitor=none."
            )
        if part.channels != source.channels:
            raise UserError(
                f"{name}={part.name}: has {part.channels} channels, the images to learn from "
                f"have {source.channels}. Give a set of the same kind, or monitor=none."
            )
    return monitor


def _thin(ids: np.ndarray, most: int) -> np.ndarray:
    """At most `most` ids, evenly spaced."""
    return ids[:: -(-len(ids) // max(most, 1))]
