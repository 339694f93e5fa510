"""The feature vector of a query image."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.data.images.decode import MEGAPIXELS, decode, read_image_file
from simsiam_tf.features.embedding_file import Embeddings
from simsiam_tf.features.extraction import forward
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
    """Features [F] of an image among the embeddings, or of an image file, preprocessed as their images were.

    Where `query` is a name among the embeddings and also a file, the name is taken, and stderr says so.

    Args:
        embeddings: the images that are searched.
        query: a name in `embeddings.names`, or a file.
        weights: the backbone; the one recorded in the embeddings when None.
        max_megapixels: a larger file is refused.
        augmentation, image_size: as for `open_pretrained`, where the embeddings do not record them.

    Raises:
        UserError: a missing or unreadable image, or another backbone than the one of the embeddings.
    """
    row, shown = embeddings.row(query), printable_text(query)
    is_file = os.path.isfile(os.path.expanduser(query))
    if row is not None:
        if is_file and not os.path.isabs(query):
            note = "the image of this name among the embeddings is taken; for the file, pass"
            print(f"query={shown}: {note} query=./{shown}", file=sys.stderr)
        return np.asarray(embeddings.features[row], np.float64)
    if not is_file:
        raise UserError(f"query={shown}: neither a file nor a name among the embeddings.")
    return embed_file(backbone_of(embeddings, weights, augmentation, image_size), query, max_megapixels)


def backbone_of(
    embeddings: Embeddings,
    weights: str | None = None,
    augmentation: str = "auto",
    image_size: int | None = None,
) -> Pretrained:
    """The backbone that made the embeddings, with the preprocessing of their images.

    Raises:
        UserError: a missing backbone, another backbone, or another preprocessing.
    """
    where = weights or embeddings.about.get("weights")
    if not isinstance(where, str) or not 0 < len(where) < 4096 or "\0" in where:
        raise UserError("`weights`: missing, and the embeddings do not say which backbone made them.")
    size, mean, std = _preprocessing(embeddings.about)
    if size and image_size not in (None, size):
        raise UserError(f"image_size={image_size}: the embeddings are of images of {size} pixels.")
    if mean and augmentation != "auto":
        row = AUGMENTATIONS[augmentation]
        if (row.mean, row.std) != (mean, std):
            raise UserError(f"augmentation={augmentation}: the embeddings' images were normalised otherwise.")
    # Where the normalisation is recorded, it replaces that of any augmentation.
    pretrained = open_pretrained(where, "imagenet" if mean else augmentation, size or image_size)
    if mean:
        recorded = dataclasses.replace(pretrained.augmentation, mean=mean, std=std)
        pretrained = dataclasses.replace(pretrained, augmentation=recorded)
    sha256, width, difference = embeddings.about.get("sha256"), embeddings.features.shape[1], ""
    if sha256 and sha256 != pretrained.sha256:
        difference = "its SHA-256 differs"
    elif width != pretrained.features:
        difference = f"it gives {pretrained.features} features, they have {width}"
    if difference:
        raise UserError(
            f"weights={printable_text(where)}: is not the backbone that made the embeddings; {difference}. "
            "Pass that one, or embed anew."
        )
    return pretrained


def _preprocessing(about: dict[str, Any]) -> tuple[int | None, tuple[float, ...], tuple[float, ...]]:
    """(size, mean, std) of the embeddings' images; None and empty where they are not recorded."""
    size = about.get("size")
    try:
        mean, std = (tuple(map(float, about.get(key) or ())) for key in ("mean", "std"))
        valid = len(mean) == len(std) <= 4 and min(std, default=1) > 0 and all(map(math.isfinite, mean + std))
        valid = valid and (size is None or (type(size) is int and 4 <= size <= 4096)) and (size or not mean)
    except (TypeError, ValueError):
        valid, mean, std = False, (), ()
    if not valid:
        raise UserError(
            f"`embeddings`: their record of the preprocessing is damaged (size {str(size)[:20]}). Embed anew."
        )
    return size, mean, std


def embed_file(pretrained: Pretrained, path: str | Path, max_megapixels: float = MEGAPIXELS) -> np.ndarray:
    """Features [F] of an image file. Raises UserError where it cannot be decoded."""
    path = Path(path).expanduser()
    try:
        data = read_image_file(os.fsencode(path), max_megapixels)
        image = decode(tf.constant(data), pretrained.channels)
    except (OSError, ValueError, tf.errors.OpError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error).split("\n")[0][:200]
        shown = printable_text(str(path))
        raise UserError(f"query={shown}: cannot be decoded ({printable_text(reason)}).") from error
    views = pretrained.views
    return forward(pretrained.backbone)(views.normalise(views.evaluation_view(image))[None]).numpy()[0]
