"""Features on disk: extracted once for each backbone and source, then read from a file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from simsiam_tf.data import Source, pipeline
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.features import changed_files
from simsiam_tf.features.changed_files import ChangedImages
from simsiam_tf.features.extraction import forward
from simsiam_tf.features.feature_file import FeatureWriter, read_or_write
from simsiam_tf.pretrained import weights_address
from simsiam_tf.pretrained.pretrained_backbone import Pretrained
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

# NOTE: raise it when decoding or the evaluation view changes, so that features are made anew.
PREPROCESSING_VERSION = 2
BLOCK = 2**24  # bytes copied at a time


def default_folder(pretrained: Pretrained) -> Path:
    """WORKDIR/features for a backbone in WORKDIR/export, else FILE.features beside the backbone.

    For a backbone by address, runs/NAME/features.
    """
    if pretrained.address:
        return weights_address.results_folder(pretrained.address) / "features"
    path = pretrained.path
    in_workdir = path.parent.name == "export"
    return path.parent.parent / "features" if in_workdir else path.with_suffix(".features")


def stored_features(
    pretrained: Pretrained, source: Source, folder: Path | None = None, batch_size: int = 256
) -> np.ndarray:
    """Features of the evaluation views of all images of a source: float32 [N, F], memory-mapped.

    The file's name holds a digest of all that the features depend on, such as the weights, the size and
    normalisation of the images, and the images' contents. An interrupted extraction is resumed; one that
    another process runs is waited for (`feature_file`).

    folder: folder of the file; `default_folder` when None. batch_size: images at a time.

    Raises:
        UserError: the folder cannot be written, a feature is not finite, or all images changed meanwhile.
        ChangedImages: some images changed or disappeared; the features of the others are kept.
    """
    folder = default_folder(pretrained) if folder is None else folder

    def extract(writer: FeatureWriter) -> None:
        changed = _extract(pretrained, source, writer, batch_size)
        if len(changed) == source.size:
            writer.discard()
            shown = printable_text(source.name)
            raise UserError(f"{shown}: all images changed or disappeared while their features were made.")
        if changed:
            assert isinstance(source, EncodedSource)
            error = ChangedImages(source, changed)
            _read_or_write(
                pretrained, error.rest, folder, lambda rest: _copy_rows(writer, rest, error.rest_ids)
            )
            writer.discard()
            raise error

    try:
        return _read_or_write(pretrained, source, folder, extract)
    except OSError as error:
        raise UserError(
            f"features_dir={folder}: cannot be written ({error.strerror}). Make room or choose another."
        ) from error


def _read_or_write(
    pretrained: Pretrained, source: Source, folder: Path, write: Callable[[FeatureWriter], None]
) -> np.ndarray:
    """`feature_file.read_or_write` for the file of a backbone and a source."""
    augmentation = pretrained.augmentation
    policies = sorted({layer.dtype_policy.name for layer in pretrained.backbone.layers})
    dependencies = [
        PREPROCESSING_VERSION, pretrained.sha256, policies, augmentation.size, augmentation.mean,
        augmentation.std, source.contents(), source.size, source.channels,
        *(["fast"] if not pretrained.exact else []),
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(dependencies).encode()).hexdigest()[:16]
    name = re.sub(r"[^\w.]+", "-", source.name, flags=re.ASCII).strip("-.")[-80:]
    shape = (source.size, pretrained.features)
    return read_or_write(folder / f"{name}-{key}.npy", shape, printable_text(source.name), write)


def _extract(pretrained: Pretrained, source: Source, writer: FeatureWriter, batch_size: int) -> set[int]:
    """Writes the missing rows; returns the ids of images that changed or disappeared meanwhile."""
    encode, changed, done = forward(pretrained.backbone), set(), writer.rows
    name = f"features of {printable_text(source.name)}"
    images = changed_files.verified_source(source, changed)
    with progress.bar(None, name, total=source.size, initial=done, unit="image") as bar:
        ids = np.arange(done, source.size)
        for views in pipeline.evaluation_views(images, pretrained.views, ids, batch_size):
            block = encode(views).numpy()
            check_finite(block, pretrained, source, writer.rows)
            writer.add(block)
            bar.update(len(block))
            if not changed:
                writer.sync_if_due()
    return changed


def check_finite(block: np.ndarray, pretrained: Pretrained, source: Source, first: int) -> None:
    """Raises UserError for features [n, F] of the images first, first + 1, … that are not all finite."""
    bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
    if len(bad):
        names, i = getattr(source, "names", None), first + bad[0]
        image = printable_text(names[i]) if names else f"image {i}"
        raise UserError(
            f"weights={pretrained.place}: its features are not all finite numbers, such as those of {image} "
            f"of {printable_text(source.name)}. Pass a backbone whose training did not diverge."
        )


def _copy_rows(source: FeatureWriter, target: FeatureWriter, ids: np.ndarray) -> None:
    """Adds the rows `ids` of one unfinished file to another, after the rows that the latter has."""
    source.opened.flush()
    rows = np.load(source.path, mmap_mode="r")
    step = max(1, BLOCK // rows[0].nbytes)
    for start in range(target.rows, len(ids), step):
        target.add(rows[ids[start : start + step]])
