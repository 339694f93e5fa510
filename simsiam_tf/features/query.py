"""The feature vector of one query image."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.data.images import header_check
from simsiam_tf.data.images.decode import decode
from simsiam_tf.features.embedding_file import Embeddings
from simsiam_tf.features.extraction import forward
from simsiam_tf.pretrained.pretrained_backbone import Pretrained, open_pretrained
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError


def features(
    known: Embeddings,
    query: str,
    weights: str | None = None,
    max_megapixels: float = header_check.MEGAPIXELS,
    augmentation: str = "auto",
    image_size: int | None = None,
) -> np.ndarray:
    """[F] features of an image that is among those known, or of an image file.

    A file is made ready as the known images were. Where a name among them is a file's, too, theirs is
    taken and a line on stderr says so.

    Args:
        known: what is searched.
        query: a name in `known.names`, or a file.
        weights: the backbone; where `known` says it lay when None.
        max_megapixels: a larger file is refused.
        augmentation, image_size: as of `open_pretrained`, where `known` does not say them.

    Raises:
        UserError: no such image, unreadable, or a backbone other than the one that made `known`.
    """
    row, shown = known.row(query), printable_text(query)
    is_file = os.path.isfile(os.path.expanduser(query))
    if row is not None:
        if is_file and not os.path.isabs(query):
            said = "the image of this name among the embeddings is taken; for the file, pass"
            print(f"query={shown}: {said} query=./{shown}", file=sys.stderr)
        return np.asarray(known.features[row], np.float64)
    if not is_file:
        raise UserError(f"query={shown}: neither a file nor a name among the embeddings.")
    pretrained = backbone_of(known, weights, augmentation, image_size)
    return of_file(pretrained, query, max_megapixels)


def backbone_of(
    known: Embeddings, weights: str | None = None, augmentation: str = "auto", image_size: int | None = None
) -> Pretrained:
    """The backbone that made the embeddings, with images made ready as theirs were.

    Raises:
        UserError: no backbone or another one, or images made ready otherwise.
    """
    where = weights or known.about.get("weights")
    if not isinstance(where, str) or not 0 < len(where) < 4096 or "\0" in where:
        raise UserError("`weights`: missing, and the embeddings do not say which backbone made them.")
    size, mean, std = _preprocessing(known.about)
    if size and image_size not in (None, size):
        raise UserError(f"image_size={image_size}: the embeddings are of images of {size} pixels.")
    if (
        mean
        and augmentation != "auto"
        and (AUGMENTATIONS[augmentation].mean, AUGMENTATIONS[augmentation].std) != (mean, std)
    ):
        raise UserError(f"augmentation={augmentation}: the embeddings' images were normalised otherwise.")
    # Where the normalisation is recorded, any augmentation will do.
    pretrained = open_pretrained(where, "imagenet" if mean else augmentation, size or image_size)
    if mean:
        recorded = dataclasses.replace(pretrained.augmentation, mean=mean, std=std)
        pretrained = dataclasses.replace(pretrained, augmentation=recorded)
    made_by, width, wrong = known.about.get("sha256"), known.features.shape[1], ""
    if made_by and made_by != pretrained.sha256:
        wrong = "its SHA-256 differs"
    elif width != pretrained.features:
        wrong = f"it gives {pretrained.features} features, they have {width}"
    if wrong:
        raise UserError(
            f"weights={printable_text(where)}: is not the backbone that made the embeddings; {wrong}. Pass "
            "that one, or embed anew."
        )
    return pretrained


def _preprocessing(about: dict) -> tuple[int | None, tuple[float, ...], tuple[float, ...]]:
    """(size, mean, std) of the embeddings' images; None and empty where it is not recorded."""
    size, mean, std = (about.get(key) for key in ("size", "mean", "std"))
    try:
        mean, std = (tuple(map(float, v or ())) for v in (mean, std))
        fits = len(mean) == len(std) <= 4 and min(std, default=1) > 0 and all(map(math.isfinite, mean + std))
        fits = fits and (size is None or (type(size) is int and 4 <= size <= 4096)) and (size or not mean)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise UserError(
            f"`embeddings`: their record of how images were made ready is damaged (size {str(size)[:20]}). "
            "Embed anew."
        )
    return size, mean, std


def of_file(
    pretrained: Pretrained, path: str | Path, max_megapixels: float = header_check.MEGAPIXELS
) -> np.ndarray:
    """[F] features of an image file. Raises UserError where it cannot be decoded."""
    path = Path(path).expanduser()
    try:
        data = header_check.read_checked(os.fsencode(path), max_megapixels)
        image = decode(tf.constant(data), pretrained.channels)
    except (OSError, ValueError, tf.errors.OpError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error).split("\n")[0][:200]
        shown = printable_text(str(path))
        raise UserError(f"query={shown}: cannot be decoded ({printable_text(reason)}).") from error
    views = pretrained.views
    return forward(pretrained.backbone)(views.normalise(views.centre(image))[None]).numpy()[0]
