"""Features on disk: made once for a backbone and a source, then read as often as wanted."""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path

import numpy as np

from simsiam_tf import progress
from simsiam_tf.data import Source, pipeline
from simsiam_tf.errors import UserError
from simsiam_tf.evaluate.features import forward
from simsiam_tf.pretrained import Pretrained

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
    images, and the source. An extraction that was ended goes on where it was.

    Args:
        pretrained: the backbone.
        source: the images.
        folder: of the file; `folder_for` when None.
        batch_size: images at a time.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = folder_for(pretrained) if folder is None else folder
    name = re.sub(r"[^\w.]+", "-", source.name).strip("-")[:80]
    file = folder / f"{name}-{_key(pretrained, source)}.npy"
    shape = (source.size, pretrained.features)
    known = _opened(file, shape)
    if known is not None:
        return known
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writing, noted = file.with_suffix(".writing.npy"), file.with_suffix(".writing.json")
        done = _done(noted)
        rows = _opened(writing, shape, "r+") if done else None
        if rows is None:
            done, rows = 0, np.lib.format.open_memmap(writing, "w+", np.float32, shape)
        _extract(pretrained, source, rows, done, batch_size, noted)
        del rows
        writing.replace(file)
        noted.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"--features_dir={folder}: cannot be written ({error.strerror}). Make room or choose another."
        ) from error
    return np.load(file, mmap_mode="r", allow_pickle=False)


def _key(pretrained: Pretrained, source: Source) -> str:
    recipe = pretrained.recipe
    depends = [pretrained.sha256, recipe.size, recipe.mean, recipe.std, source.fingerprint, source.size]
    return hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]


def _opened(file: Path, shape: tuple[int, int], mode: str = "r") -> np.ndarray | None:
    """The array in a file; None where there is none, or another."""
    try:
        rows = np.load(file, mmap_mode=mode, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return rows if rows.shape == shape and rows.dtype == np.float32 else None


def _done(noted: Path) -> int:
    """How many rows an extraction has behind it."""
    try:
        return int(json.loads(noted.read_text())["rows"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _extract(
    pretrained: Pretrained, source: Source, rows: np.memmap, done: int, batch_size: int, noted: Path
) -> None:
    encode, at = forward(pretrained.backbone), done
    ids = np.arange(done, source.size)
    bar = progress.bar(None, f"features of {source.name}", total=source.size, initial=done, unit="image")
    synced = time.monotonic()
    with bar:
        for images in pipeline.centred(source, pretrained.views, ids, batch_size):
            block = encode(images).numpy()
            rows[at : at + len(block)] = block
            at += len(block)
            bar.update(len(block))
            if time.monotonic() - synced > SYNC_SECONDS:
                rows.flush()
                noted.write_text(json.dumps({"rows": at}))
                synced = time.monotonic()
    rows.flush()
