"""Features on disk: made once for a backbone and a source, then read as often as wanted."""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path

import numpy as np

from simsiam_tf.data import Source, pipeline
from simsiam_tf.features import changed_files, feature_file
from simsiam_tf.features.extraction import forward
from simsiam_tf.pretrained.pretrained_backbone import Pretrained
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

PIXELS = 1  # NOTE: raise it where decoding or the centre view changes, so that features are made anew
SYNC_SECONDS = 30.0  # between notes of how far an extraction is


def folder_for(pretrained: Pretrained) -> Path:
    """Where the features of a backbone lie by default: WORKDIR/features, or beside the file."""
    path = pretrained.path
    in_workdir = path.parent.name == "export"
    return path.parent.parent / "features" if in_workdir else path.with_suffix(".features")


def stored(
    pretrained: Pretrained, source: Source, folder: Path | None = None, batch_size: int = 256
) -> np.ndarray:
    """Features of the centre views of a whole source: float32 [N, F], mapped from a file.

    The file's name holds a digest of what they depend on: weights, size and normalisation of the
    images, and the images' contents. An extraction that was ended goes on where it was; one that
    another process is at is waited for (`feature_file`).

    Args:
        pretrained: the backbone.
        source: the images.
        folder: of the file; `folder_for` when None.
        batch_size: images at a time.

    Raises:
        UserError: the folder cannot be written, or a feature is no finite number.
        changes.ChangedImages: images changed or went meanwhile; the features of the others are kept.
    """
    folder = folder_for(pretrained) if folder is None else folder
    file, shape = _file(pretrained, source, folder), (source.size, pretrained.features)
    try:
        rows = feature_file.read(file, shape)
        if rows is None:
            folder.mkdir(parents=True, exist_ok=True)
            with feature_file.claim(file, printable_text(source.name)) as unfinished:
                rows = feature_file.read(file, shape)  # another process may have made it meanwhile
                if rows is None:
                    writer = feature_file.Writer(file, shape, *unfinished)
                    changed = _extract(pretrained, source, writer, batch_size)
                    if changed:
                        raise _keep_others(pretrained, source, changed, folder, writer)
                    writer.finish()
                    rows = writer.written()
    except OSError as error:
        raise UserError(
            f"features_dir={folder}: cannot be written ({error.strerror}). Make room or choose another."
        ) from error
    return rows


def _file(pretrained: Pretrained, source: Source, folder: Path) -> Path:
    augmentation = pretrained.augmentation
    policies = sorted({layer.dtype_policy.name for layer in pretrained.backbone.layers})
    depends = [
        PIXELS, pretrained.sha256, policies, augmentation.size, augmentation.mean, augmentation.std,
        source.contents(), source.size, source.channels,
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]
    name = re.sub(r"[^\w.]+", "-", source.name, flags=re.ASCII).strip("-.")[-80:]
    return folder / f"{name}-{key}.npy"


def _extract(
    pretrained: Pretrained, source: Source, writer: feature_file.Writer, batch_size: int
) -> set[int]:
    """Writes all rows that are missing; returns the ids of images that changed or went meanwhile."""
    encode, changed, done = forward(pretrained.backbone), set(), writer.rows
    name = f"features of {printable_text(source.name)}"
    bar = progress.bar(None, name, total=source.size, initial=done, unit="image")
    images, synced = changed_files.watch(source, changed), time.monotonic()
    with bar:
        for views in pipeline.centred(images, pretrained.views, np.arange(done, source.size), batch_size):
            block = encode(views).numpy()
            _check_finite(block, pretrained, source, writer.rows)
            writer.add(block)
            bar.update(len(block))
            if time.monotonic() - synced > SYNC_SECONDS and not changed:
                writer.sync()
                synced = time.monotonic()
    return changed


def _check_finite(block: np.ndarray, pretrained: Pretrained, source: Source, first: int) -> None:
    bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
    if len(bad):
        names, i = getattr(source, "names", None), first + bad[0]
        image = printable_text(names[i]) if names else f"image {i}"
        raise UserError(
            f"weights={pretrained.path}: its features are not all finite numbers, such as those of {image} "
            f"of {printable_text(source.name)}. Pass a backbone whose training did not diverge."
        )


def _keep_others(
    pretrained: Pretrained, source: Source, changed: set[int], folder: Path, writer: feature_file.Writer
) -> UserError:
    """Keeps the features of the images that are as they were; returns what is to be raised."""
    error = changed_files.changed_images(source, changed)
    if isinstance(error, changed_files.ChangedImages):
        rows, rest = writer.written(), error.rest
        file, shape = _file(pretrained, rest, folder), (rest.size, pretrained.features)
        ids = np.setdiff1d(np.arange(source.size), list(changed))
        with feature_file.claim(file, printable_text(source.name)) as unfinished:
            others = feature_file.Writer(file, shape, *unfinished)
            step = max(1, feature_file.BLOCK // rows[0].nbytes)
            for start in range(others.rows, len(ids), step):
                others.add(rows[ids[start : start + step]])
            others.finish()
    writer.remove()
    return error
