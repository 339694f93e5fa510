"""Embeddings of all images of a source by a backbone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_tf.config.places import absolute_path, absolute_places, is_file
from simsiam_tf.data import Source
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.data.sources.unreadable import add_to_report
from simsiam_tf.features import store
from simsiam_tf.features.changed_files import ChangedImages
from simsiam_tf.features.embedding_file import Embeddings
from simsiam_tf.features.fast import fold, shrink_images
from simsiam_tf.pretrained.pretrained_backbone import Pretrained
from simsiam_tf.runtime.display_text import printable_text


def embed(
    pretrained: Pretrained,
    source: Source,
    folder: Path | None = None,
    batch_size: int = 256,
    on_bad_image: str = "error",
    report: Path | None = None,
    fast: bool = False,
) -> Embeddings:
    """Embeddings of all images of a source.

    Args:
        pretrained: the backbone and its preprocessing, of `open_pretrained`.
        source: images with as many channels as the backbone takes.
        folder, batch_size: as for `store.stored_features`, which extracts the features.
        on_bad_image: "skip" leaves out images that change or disappear meanwhile, and names them on stderr;
            "error" raises `ChangedImages`.
        report: JSON file of unreadable images, to which those left out are added; None for no file.
        fast: compute the features in less time, with differences of about 1 % (`features.fast`).

    Raises:
        UserError: the source has other channels, or as `store.stored_features`.
    """
    pretrained.check_channels(source)
    if fast:
        pretrained, source = fold(pretrained), shrink_images(pretrained, source)
    try:
        features = store.stored_features(pretrained, source, folder, batch_size)
    except ChangedImages as error:
        if on_bad_image != "skip":
            raise
        report_left_out(source, error.names, report)
        source = error.rest
        features = store.stored_features(pretrained, source, folder, batch_size)
    names = getattr(source, "names", None) or [str(i) for i in range(source.size)]
    return Embeddings(np.array(names, object), features, embedding_metadata(pretrained, source))


def embedding_metadata(pretrained: Pretrained, source: Source) -> dict[str, Any]:
    """`Embeddings.about` for the features of a source's images by a backbone."""
    augmentation = pretrained.augmentation
    about = {
        "data": absolute_places(source.name) if is_file(source.name) else source.name,
        "weights": absolute_path(pretrained.place), "sha256": pretrained.sha256,
        "size": augmentation.size, "mean": list(augmentation.mean), "std": list(augmentation.std),
    }  # fmt: skip
    if not pretrained.exact:
        about["fast"] = True
    if isinstance(source, EncodedSource):
        about["pixels"] = source.rule.options()
    return about


def report_left_out(source: Source, names: list[str], report: Path | None = None) -> None:
    """Names the images that changed or disappeared on stderr, and adds them to `report`, a JSON file."""
    if report is not None:
        add_to_report(report, names)
    shown = ", ".join(map(printable_text, names[:10]))
    more = f" and {len(names) - 10} more" if names[10:] else ""
    named = f"; named in {report}" if report else ""
    print(
        f"{printable_text(source.name)}: {len(names)} of {source.size} images left out, which changed or "
        f"disappeared while their features were made: {shown}{more}{named}",
        file=sys.stderr,
    )
