"""Computes the features of a query image with the backbone that made the embeddings."""

from __future__ import annotations

import dataclasses
import math
import os
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
from simsiam_tf.pretrained.backbone_file import read_card
from simsiam_tf.pretrained.pretrained_backbone import Pretrained, open_pretrained
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError


def query_features(
    embeddings: Embeddings,
    query: str,
    weights: str | None = None,
    max_megapixels: float = MEGAPIXELS,
    augmentation: str = "auto",
    image_size: int | None = None,
) -> np.ndarray:
    """Features [F] of an image among the embeddings, or of a file, preprocessed as the embedded images were.

    Args:
        query: a name in `embeddings.names`, or else the path of an image file.
        weights, augmentation, image_size: as for `backbone_of`; used where `query` is a file.
        max_megapixels: an image file with more is refused.

    Raises:
        UserError: as `backbone_of` and `embed_file`; or `query` is neither a name nor a file.
    """
    row = embeddings.row(query)
    if row is not None:
        return np.asarray(embeddings.features[row], np.float64)
    if not os.path.isfile(os.path.expanduser(query)):
        raise UserError(f"query={printable_text(query)}: neither a file nor a name among the embeddings.")
    return embed_file(backbone_of(embeddings, weights, augmentation, image_size), query, max_megapixels)


def backbone_of(
    embeddings: Embeddings,
    weights: str | None = None,
    augmentation: str = "auto",
    image_size: int | None = None,
) -> Pretrained:
    """The backbone that made the embeddings, with the preprocessing of their images.

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
        check_size(os.path.getsize(path), path.name, max_megapixels)
        data = read_bytes(str(path))
        read_header(data, max_megapixels)
        image = tf.constant(render(data, pretrained.pixel_rule))
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error).split("\n")[0][:200]
        shown = printable_text(str(path))
        raise UserError(f"query={shown}: cannot be decoded ({printable_text(reason)}).") from error
    views = pretrained.views
    return forward(pretrained.backbone)(views.normalise(views.evaluation_view(image))[None]).numpy()[0]
