"""The feature vector of one query image."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from simsiam_tf.data import folder, headers
from simsiam_tf.errors import UserError
from simsiam_tf.evaluate.embedding import Embeddings
from simsiam_tf.evaluate.features import forward
from simsiam_tf.pretrained import Pretrained, open_pretrained


def features(
    known: Embeddings, query: str, weights: str | None = None, max_megapixels: float = headers.MEGAPIXELS
) -> np.ndarray:
    """[F] features of an image file, or of an image that is among those known.

    Args:
        known: what is searched.
        query: a file, or a name in `known.names`.
        weights: the backbone; where `known` says it lay when None.
        max_megapixels: a larger file is refused.

    Raises:
        UserError: no such image, unreadable, or a backbone other than the one that made `known`.
    """
    path = Path(query).expanduser()
    if not path.exists():
        among = np.flatnonzero(known.names == query)
        if not len(among):
            raise UserError(f"--query={query}: neither a file nor a name among the embeddings.")
        return np.asarray(known.features[among[0]], np.float32)
    where = weights or known.about.get("weights")
    if not where:
        raise UserError("--weights: missing, and the embeddings do not say which backbone made them.")
    pretrained = open_pretrained(where)
    made_by = known.about.get("sha256")
    if made_by and made_by != pretrained.sha256:
        raise UserError(
            f"--weights={where}: is not the backbone that made the embeddings; its SHA-256 differs. Pass "
            "that one, or embed anew."
        )
    return of_file(pretrained, path, max_megapixels)


def of_file(
    pretrained: Pretrained, path: str | Path, max_megapixels: float = headers.MEGAPIXELS
) -> np.ndarray:
    """[F] features of an image file. Raises UserError where it cannot be decoded."""
    path = Path(path).expanduser()
    try:
        data = headers.read_checked(os.fsencode(path), max_megapixels)
        image = folder.decode(tf.constant(data), pretrained.channels)
    except (OSError, ValueError, tf.errors.OpError) as error:
        reason = str(error).split("\n")[0][:200]
        raise UserError(f"--query={path}: cannot be decoded ({reason}).") from error
    views = pretrained.views
    return forward(pretrained.backbone)(views.normalise(views.centre(image))[None]).numpy()[0]
