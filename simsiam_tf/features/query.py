"""Computes the features of query images with the backbone that made the embeddings."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from simsiam_tf.config.backbones import PIXELS
from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.data.images.header import MEGAPIXELS, check_size, read_header
from simsiam_tf.data.images.render import PixelRule, render
from simsiam_tf.data.sources.addresses import read_bytes
from simsiam_tf.features.embedding_file import Embeddings
from simsiam_tf.features.extraction import forward
from simsiam_tf.features.query_list import Queries
from simsiam_tf.pretrained.backbone_file import read_card
from simsiam_tf.pretrained.pretrained_backbone import Pretrained, open_pretrained
from simsiam_tf.runtime import cores, progress
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

BATCH = 64  # query images whose features are computed at a time


def open_backbone(
    embeddings: Embeddings,
    weights: str | None = None,
    augmentation: str = "auto",
    image_size: int | None = None,
) -> Pretrained:
    """Opens the backbone that made the embeddings, with the preprocessing of their images.

    Args:
        weights: the backbone; the one that the embeddings record when None.
        augmentation, image_size: as for `open_pretrained`; needed where the embeddings record no
            preprocessing.

    Raises:
        UserError: no backbone is named, or the backbone or the preprocessing differs from the embeddings'.
    """
    path = weights or embeddings.about.get("weights")
    if not isinstance(path, str) or not 0 < len(path) < 4096 or "\0" in path:
        raise UserError("`weights`: missing, and the embeddings do not say which backbone made them.")
    recorded = _recorded_preprocessing(embeddings.about)
    if recorded and image_size not in (None, recorded["size"]):
        raise UserError(
            f"image_size={image_size}: the embeddings are of images of {recorded['size']} pixels."
        )
    if recorded and augmentation != "auto":
        chosen = AUGMENTATIONS[augmentation]
        if (chosen.mean, chosen.std) != (recorded["mean"], recorded["std"]):
            raise UserError(f"augmentation={augmentation}: the embeddings' images were normalised otherwise.")
    options: dict[str, Any] = {"augmentation": augmentation, "image_size": image_size}
    if recorded:  # below, its size and normalisation replace those of the augmentation
        scales = {(scale.mean, scale.std): name for name, scale in PIXELS.items()}
        pixels = scales.get((recorded["mean"], recorded["std"]))
        # Without a card, `pixels` tells how to pool the network and whether to reverse its channels.
        by_name = pixels is not None and not read_card(path)
        options = {"pixels": pixels} if by_name else {"augmentation": "imagenet"}
        options["image_size"] = recorded["size"]
    pretrained = open_pretrained(path, **options)
    pixels = recorded.pop("pixels", None)
    pretrained = dataclasses.replace(
        pretrained, augmentation=dataclasses.replace(pretrained.augmentation, **recorded),
        card=pretrained.card if pixels is None else {**pretrained.card, "pixels": pixels},
    )  # fmt: skip
    sha256, width, difference = embeddings.about.get("sha256"), embeddings.features.shape[1], ""
    if sha256 and sha256 != pretrained.sha256:
        difference = "its SHA-256 differs"
    elif width != pretrained.features:
        difference = f"it gives {pretrained.features} features, they have {width}"
    if difference:
        raise UserError(
            f"weights={printable_text(path)}: is not the backbone that made the embeddings; {difference}. "
            "Pass that one, or embed anew."
        )
    return pretrained


def _recorded_preprocessing(about: dict[str, Any]) -> dict[str, Any]:
    """The preprocessing that `embed` records: "size", "mean", "std", and "pixels" where it is not empty.

    Empty where no "size", "mean" or "std" is recorded. Raises UserError where the record is damaged.
    """
    recorded = {key: about[key] for key in ("size", "mean", "std") if key in about}
    if not recorded:
        return {}
    try:
        size, mean, std = about["size"], tuple(map(float, about["mean"])), tuple(map(float, about["std"]))
        valid = type(size) is int and 4 <= size <= 4096 and len(mean) == len(std)
        valid = valid and all(map(math.isfinite, mean + std)) and min(std) > 0
        pixels = about.get("pixels", {})
        PixelRule.from_options(3, **pixels)
    except (KeyError, TypeError, ValueError, UserError):
        valid = False
    if not valid:
        raise UserError(
            f"`embeddings`: their record of the preprocessing is damaged ({str(recorded)[:60]}). Embed anew."
        )
    return {"size": size, "mean": mean, "std": std, **({"pixels": pixels} if pixels else {})}


def embed_file(pretrained: Pretrained, path: str | Path, max_megapixels: float = MEGAPIXELS) -> np.ndarray:
    """Features [F] of an image file. Raises UserError where it cannot be decoded or is too large."""
    path = Path(path).expanduser()
    try:
        view = _evaluation_view(pretrained, path, max_megapixels)
    except (OSError, ValueError) as error:
        shown = printable_text(str(path))
        raise UserError(f"query={shown}: cannot be decoded ({_reason(error)}).") from error
    return forward(pretrained.backbone)(view[None]).numpy()[0]


def embed_files(
    pretrained: Pretrained, paths: Sequence[str], max_megapixels: float = MEGAPIXELS
) -> tuple[np.ndarray, dict[int, str]]:
    """(features of M image files, float32 [M, F]; row → reason, for files that cannot be decoded).

    The features of a file that cannot be decoded are 0. `BATCH` images are in memory at a time, read by as
    many threads as the machine has cores.
    """
    encode, reasons = forward(pretrained.backbone), {}
    features = np.zeros((len(paths), pretrained.features), np.float32)

    def view(i: int) -> tf.Tensor | None:
        try:
            return _evaluation_view(pretrained, Path(paths[i]), max_megapixels)
        except (OSError, ValueError) as error:
            reasons[i] = _reason(error)
            return None

    with concurrent.futures.ThreadPoolExecutor(cores.decoding_threads()) as threads:
        for start in progress.bar(range(0, len(paths), BATCH), "queries", unit="batch", leave=False):
            numbers = range(start, min(start + BATCH, len(paths)))
            views = dict(zip(numbers, threads.map(view, numbers), strict=True))
            decoded = [i for i in numbers if views[i] is not None]
            if decoded:
                features[decoded] = encode(tf.stack([views[i] for i in decoded])).numpy()
    return features, reasons


def embed_queries(
    embeddings: Embeddings, queries: Queries, backbone: Pretrained, max_megapixels: float = MEGAPIXELS
) -> tuple[Queries, np.ndarray]:
    """(the queries without those that cannot be decoded, their features [M, F]).

    A line on stderr counts the queries that cannot be decoded.

    Raises:
        UserError: no query can be decoded.
    """
    numbers, stored = np.array(list(queries.files)), queries.stored_features(embeddings)
    features, bad = embed_files(backbone, list(queries.files.values()), max_megapixels)
    vectors = stored.astype(np.result_type(stored.dtype, np.float32))
    vectors[numbers] = features
    kept = np.setdiff1d(np.arange(len(vectors)), numbers[sorted(bad)])
    if bad:
        first = min(bad)
        such = f"{printable_text(str(queries.names[numbers[first]]))}: {bad[first]}"
        if not len(kept):
            raise UserError(f"`query`: none of its {len(vectors)} images can be decoded ({such}).")
        print(
            f"{len(bad)} of {len(vectors)} queries are left out, which cannot be decoded ({such})",
            file=sys.stderr,
        )
    return queries.take(kept), vectors[kept]


def _evaluation_view(pretrained: Pretrained, path: Path, max_megapixels: float) -> tf.Tensor:
    """The normalised evaluation view of an image file. Raises OSError or ValueError."""
    check_size(os.path.getsize(path), path.name, max_megapixels)
    data = read_bytes(str(path))
    read_header(data, max_megapixels)
    image = tf.constant(render(data, pretrained.pixel_rule))
    views = pretrained.views
    return views.normalise(views.evaluation_view(image))


def _reason(error: Exception) -> str:
    reason = (isinstance(error, OSError) and error.strerror) or str(error).split("\n")[0][:200]
    return printable_text(reason)
