"""Evaluates features without labels: the share of changed crops whose nearest image is their own.

As in instance retrieval, queries and gallery are views of the same images, compared by their features. The
queries are changed in ways that training does not teach a network to ignore (`QueryView`). Raw pixels and
untrained weights are evaluated on the same queries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf.data import Source, Views, open_source
from simsiam_tf.data.augment.query_view import QueryView
from simsiam_tf.evaluate import finishing, spectra
from simsiam_tf.features import extraction
from simsiam_tf.nets.whitening import read_quarters, whitening_layer, without_whitening
from simsiam_tf.pretrained.pretrained_backbone import Pretrained, open_pretrained

IMAGES = 2000  # most images of the gallery
SEED = 0  # the same for all runs, so that their queries are the same
Encoder = Callable[[tf.Tensor], tf.Tensor]  # normalised views [B, S, S, C] → features [B, F]


@dataclasses.dataclass(frozen=True)
class LabelFreeMonitor:
    """Evaluates features by retrieval among a sample of a source's images.

    views: makes the evaluation views. seed: seed of the sample and the queries. query: makes the queries.
    """

    source: Source
    views: Views
    seed: int = SEED
    query: QueryView = QueryView()

    title = "retrieval of the own image"
    deciding = "recall1"
    views_per_image = 2  # the gallery's and the query

    def queries_of(self, images: int | None = None) -> int:
        """The number of queries of an evaluation on `images` images (None: all)."""
        return self.size(images)

    def backbone_accuracy(
        self, backbone: keras.Model, images: int | None = None, read_size: int | None = None
    ) -> dict[str, float]:
        """`accuracy` of a backbone's features.

        images: number of images, at most `IMAGES`; that many when None.
        read_size: side in pixels of the images that finished features are read from; with it, the result also
            has their recall at 1: "whitened_recall1".
        """
        accuracy = self.accuracy(extraction.forward(backbone), images)
        if read_size is None:
            return accuracy
        encode = extraction.forward(read_quarters(backbone, read_size))
        return accuracy | self._whitened(encode, images, read_size, finishing.SHRINKAGE)

    def accuracy(self, encode: Encoder, images: int | None = None) -> dict[str, float]:
        """{"recall1": …, "mrr": …, "rankme": …}: `retrieval`, and `spectra.rankme` of the gallery."""
        gallery, queries = self.features(encode, images)
        return {**retrieval(gallery, queries), "rankme": spectra.rankme(gallery)}

    def _whitened(self, encode: Encoder, images: int | None, size: int, shrinkage: float) -> dict[str, float]:
        """{"whitened_recall1": …} of features of images of `size` pixels; {} where they do not vary.

        The whitening is fitted to the gallery. shrinkage: its least shrinkage.
        """
        monitor = dataclasses.replace(self, views=finishing.reading_views(self.views, size))
        gallery, queries = monitor.features(encode, images)
        fitted = finishing.fit_whitening(gallery, finishing.chosen_shrinkage(gallery, shrinkage))
        if fitted is None:
            return {}
        return {"whitened_recall1": retrieval(fitted(gallery), fitted(queries))["recall1"]}

    def baselines(
        self, untrained: keras.Model | None, images: int | None = None, read_size: int | None = None
    ) -> dict[str, dict[str, float]]:
        """`accuracy` of the baselines: "raw pixels" and, where it is given, "untrained backbone".

        Raw pixels are those of `small_pixels`. images, read_size: as for `backbone_accuracy`.
        """
        encode = lambda x: extraction.small_pixels(self.views.denormalise(x))  # noqa: E731
        pixels = self.accuracy(encode, images)
        if read_size is not None:
            pixels |= self._whitened(encode, images, read_size, finishing.PIXEL_SHRINKAGE)
        if untrained is None:
            return {"raw pixels": pixels}
        untrained_accuracy = self.backbone_accuracy(untrained, images, read_size)
        return {"raw pixels": pixels, "untrained backbone": untrained_accuracy}

    def features(self, encode: Encoder, images: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Features of the gallery's views and of the queries of a sample: two float32 [N, F]."""
        ids, batch = self.sample(images), extraction.default_batch(self.source, self.views)
        encoded, batches = [], extraction.evaluation_views(self.source, self.views, ids, batch)
        for start, x in zip(range(0, len(ids), batch), batches, strict=True):
            queries = self.query.apply(self.views.denormalise(x), ids[start : start + batch], self.seed)
            encoded.append([encode(view).numpy() for view in (x, self.views.normalise(queries))])
        gallery, queries = (np.concatenate(blocks) for blocks in zip(*encoded, strict=True))
        return gallery, queries

    def sample(self, images: int | None = None) -> np.ndarray:
        """Sorted ids of a sample of images, which depends on the seed."""
        rng = np.random.default_rng(self.seed)
        return np.sort(rng.choice(self.source.size, self.size(images), replace=False))

    def size(self, images: int | None = None) -> int:
        """The number of images in `sample`."""
        return min(IMAGES, self.source.size, images or IMAGES)


def retrieval(gallery: np.ndarray, queries: np.ndarray) -> dict[str, float]:
    """Measures how near each query is to its own image among all, by cosine of centred features.

    Of equal cosines, any order is as likely: with the same features for all images, recall is 1/N.

    gallery, queries: features [N, F]; row i of the gallery is the own image of query i. Both are centred by
        the gallery's mean.

    Returns:
        "recall1": recall at 1, the share of queries whose nearest image is their own. "mrr": mean reciprocal
        rank of the own image. Both in [0, 1].
    """
    mean = gallery.mean(axis=0, dtype=np.float64)
    unit = []
    for features in (gallery, queries):
        x = np.nan_to_num(features - mean)
        unit.append((x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)).astype(np.float32))
    cosines = unit[1] @ unit[0].T
    own_cosine = np.diagonal(cosines)[:, None]
    nearer = (cosines > own_cosine).sum(axis=1)
    equal = (cosines == own_cosine).sum(axis=1)  # the own image included
    return {
        "recall1": float(((nearer == 0) / equal).mean()),
        "mrr": float((1 / (nearer + (equal + 1) / 2)).mean()),
    }


def untrained_backbone(pretrained: Pretrained, seed: int = SEED) -> keras.Model:
    """The network of a backbone with random weights; a finished one still reads quarters, unwhitened."""
    keras.utils.set_random_seed(seed)
    untrained = keras.models.clone_model(without_whitening(pretrained.backbone))
    if whitening_layer(pretrained.backbone) is None:
        return untrained
    return read_quarters(untrained, pretrained.augmentation.size)


def judge(
    backbone: Pretrained | str | Path, data: str | Source, images: int | None = None, seed: int = SEED
) -> dict[str, dict[str, float]]:
    """All measures without labels, of a backbone and of its two baselines, on the same images.

    Args:
        backbone: a result of `open_pretrained`, or the path or address that it opens, such as a work folder.
        data: a source, or a specification as for `open_source`.
        images: number of images, at most `IMAGES`; that many when None.
        seed: seed of the sample, of the queries, and of the untrained weights.

    Returns:
        "raw pixels", "untrained backbone" (the architecture with random weights) and "backbone", each with
        "recall1", "mrr", "rankme", "alpha_req" and "lidar" (of two views an image); see `retrieval` and
        `spectra`. Where the backbone whitens its features, those of the baselines are whitened, too.

    Raises:
        UserError: as `open_pretrained` and `open_source`; or the images have other channels than the backbone
            takes.
    """
    pretrained = backbone if isinstance(backbone, Pretrained) else open_pretrained(str(backbone))
    source = data
    if not isinstance(source, Source):
        source = open_source(source, "train", **pretrained.options_for(source, {}))
    pretrained.check_channels(source)
    monitor = LabelFreeMonitor(source, pretrained.views, seed)
    untrained = untrained_backbone(pretrained, seed)
    whitened = whitening_layer(pretrained.backbone) is not None
    encoders = {  # name → (encoder, least shrinkage of a whitening; None: the encoder whitens by itself)
        "raw pixels": (
            lambda x: extraction.small_pixels(monitor.views.denormalise(x)), finishing.PIXEL_SHRINKAGE
        ),
        "untrained backbone": (extraction.forward(untrained), finishing.SHRINKAGE),
        "backbone": (extraction.forward(pretrained.backbone), None),
    }  # fmt: skip
    measures = {}
    for name, (encode, shrinkage) in encoders.items():
        gallery, queries = monitor.features(encode, images)
        if whitened and shrinkage is not None:
            fitted = finishing.fit_whitening(gallery, finishing.chosen_shrinkage(gallery, shrinkage))
            gallery, queries = (fitted(f) if fitted else f for f in (gallery, queries))
        measures[name] = {
            **retrieval(gallery, queries),
            "rankme": spectra.rankme(gallery),
            "alpha_req": spectra.alpha_req(gallery),
            "lidar": spectra.lidar(np.stack([gallery, queries], axis=1)),
        }
    return measures
