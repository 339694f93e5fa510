"""Embeddings of images as a file: names, features, and which backbone made them of which images."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from simsiam_tf.data import Source
from simsiam_tf.data.sources import folder_check
from simsiam_tf.features import npz, parquet, store
from simsiam_tf.features.changed_files import ChangedImages
from simsiam_tf.features.knn import nearest
from simsiam_tf.pretrained.pretrained_backbone import Pretrained
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

SUFFIXES = (".npz", ".parquet")
BLOCK = 2**22  # numbers that are checked at a time
ROUNDING = 0.01  # of an embedding's largest number, that its others may be off by in a file


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """names: of N images, relative to their folder; features: [N, F].

    about: of the backbone and the data; from it a query is made ready as the images were: "weights",
    "sha256" (the backbone), "size", "mean", "std" (the images), "data".
    """

    names: np.ndarray
    features: np.ndarray
    about: dict

    def neighbours(self, query: np.ndarray, k: int = 9) -> list[tuple[str, float]]:
        """(name, cosine) of the k images nearest to a feature vector [F], the nearest first.

        Raises:
            UserError: a vector of another width, or without a direction.
        """
        query, width = np.asarray(query), self.features.shape[1]
        if query.shape != (width,):
            raise UserError(
                f"the query's features have shape {query.shape}, those of the embeddings ({width},). Take "
                "the backbone that made the embeddings, or embed anew."
            )
        if not np.isfinite(query).all() or not query.any():
            raise UserError("the query's features are all 0 or not all numbers; nothing is near to it.")
        cosines, rows = nearest(self.features, query[None], k)
        return [(str(self.names[i]), float(s)) for i, s in zip(rows[0], cosines[0], strict=True)]

    def row(self, name: str) -> int | None:
        """The row of an image, by its name, or by its name as it is printed."""
        rows = np.flatnonzero(self.names == name)
        if not len(rows) and "\\" in name:
            rows = np.flatnonzero([printable_text(str(n)) == name for n in self.names])
        return int(rows[0]) if len(rows) else None


def embed(
    pretrained: Pretrained,
    source: Source,
    folder: Path | None = None,
    batch_size: int = 256,
    on_bad_image: str = "error",
    report: Path | None = None,
) -> Embeddings:
    """Features of all images of a source, kept in `folder` so that they are made once (`store`).

    Args:
        pretrained: the backbone.
        source: the images.
        folder: of the kept features; `store.folder_for` when None.
        batch_size: images at a time.
        on_bad_image: "skip" leaves out images that change or go meanwhile, and names them on stderr.
        report: of the folder's images; those that are left out are added to it.

    Raises:
        UserError: as `store.stored`; or other channels than the backbone's.
    """
    pretrained.check_channels(source)
    try:
        features = store.stored(pretrained, source, folder, batch_size)
    except ChangedImages as error:
        if on_bad_image != "skip":
            raise
        _say_left_out(source, error.names, report)
        source = error.rest
        features = store.stored(pretrained, source, folder, batch_size)
    names = getattr(source, "names", None) or [str(i) for i in range(source.size)]
    augmentation = pretrained.augmentation
    about = {
        "data": source.name, "weights": str(pretrained.path.absolute()), "sha256": pretrained.sha256,
        "size": augmentation.size, "mean": list(augmentation.mean), "std": list(augmentation.std),
    }  # fmt: skip
    return Embeddings(np.array(names, object), features, about)


def _say_left_out(source: Source, names: list[str], report: Path | None) -> None:
    if report is not None:
        folder_check.add_to_report(report, names)
    shown = ", ".join(map(printable_text, names[:10]))
    more = f" and {len(names) - 10} more" if names[10:] else ""
    where = f"; named in {report}" if report else ""
    print(
        f"{printable_text(source.name)}: {len(names)} of {source.size} images left out, which changed or "
        f"went while their features were made: {shown}{more}{where}",
        file=sys.stderr,
    )


def check_place(path: Path) -> None:
    """Raises UserError where a file could not be written: before the work whose result it is to hold."""
    check_suffix(path)
    if path.suffix == ".parquet":
        parquet.library("out")
    with _write_errors(path):
        if path.is_dir():
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=_make(path.parent)):
            pass


def write(embeddings: Embeddings, path: str | Path, dtype: str = "float32") -> None:
    """Writes .npz ("names", "features", "about") or .parquet, whole or not at all.

    Raises:
        UserError: another suffix, it cannot be written, or `dtype` cannot hold the features.
    """
    path, kind = Path(path), np.dtype(dtype)
    check_suffix(path)
    names, features, about = embeddings.names, embeddings.features, embeddings.about
    _check_rounding(embeddings, kind)
    unfinished = path.with_name(f".writing-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with _write_errors(path):
            _make(path.parent)
            with open(unfinished, "xb") as file:
                if path.suffix == ".npz":
                    text, longest = np.array(json.dumps(about)), max(map(len, map(str, names)), default=1)
                    members = {
                        "names": (names, np.dtype(f"U{max(1, longest)}")), "features": (features, kind),
                        "about": (text, text.dtype),
                    }  # fmt: skip
                    npz.write(file, members)
                else:
                    parquet.write(file, names, features, about, kind)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"out={path}: cannot be written ({error.strerror}). Make room or choose another place."
        ) from error


def _make(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _blocks(features: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows) of all features, a block at a time."""
    step = max(1, BLOCK // features.shape[1])
    for start in range(0, len(features), step):
        yield start, features[start : start + step]


def _check_rounding(embeddings: Embeddings, dtype: np.dtype) -> None:
    """Raises UserError where features would be others in the file, as those above float16's 65,504 are."""
    if dtype == embeddings.features.dtype:
        return
    with np.errstate(over="ignore", invalid="ignore"):
        for start, rows in _blocks(embeddings.features):
            exact = np.asarray(rows, np.float64)
            off = np.abs(rows.astype(dtype).astype(np.float64) - exact).max(axis=1)
            bad = np.flatnonzero(~(off <= ROUNDING * np.abs(exact).max(axis=1)))
            if len(bad):
                name = printable_text(str(embeddings.names[start + bad[0]]))
                largest = np.abs(exact[bad[0]]).max()
                raise UserError(
                    f"dtype={dtype}: cannot hold the features of {name}, whose largest is {largest:.3g}. "
                    "Pass dtype=float32."
                )


def check_suffix(path: Path, flag: str = "out") -> None:
    """Raises UserError for a kind of file that embeddings are not kept in."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{flag}={printable_text(str(path))}: must end in {' or '.join(SUFFIXES)}.")


def read(path: str | Path) -> Embeddings:
    """Reads what `write` or another tool wrote: .npz by np.savez, or .parquet; "about" may be missing.

    Features of an .npz are mapped: they take no memory. Nothing in a file is run or expanded: arrays of
    objects and compressed ones are refused.

    Raises:
        UserError: missing, damaged, or not names and finite features of as many images.
    """
    path = Path(path)
    check_suffix(path, "embeddings")
    what = f"embeddings={printable_text(str(path))}"
    if not path.is_file():
        raise UserError(f"{what}: no such file. Make it with python -m simsiam_tf.embed.")
    try:
        names, features, about = _read_npz(path) if path.suffix == ".npz" else parquet.read(path)
        _check_read(names, features, about)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - zip, NumPy and Arrow raise many kinds
        reason = printable_text(" ".join(str(error).split())[:200])
        raise UserError(f"{what}: no embeddings can be read from it ({reason}).") from error
    return Embeddings(names, features, about)


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray, dict]:
    found = npz.read(path, ("names", "features", "about"))
    for key in ("names", "features"):
        if key not in found:
            raise ValueError(f"it has no array {key!r}")
    names, about = found["names"], found.get("about", np.array("{}"))
    if names.dtype.kind == "S":
        names = np.array([os.fsdecode(name) for name in names.tolist()], object)
    elif names.dtype.kind in "iu":
        names = names.astype(str)
    if about.size != 1 or about.dtype.kind not in "SU" or about.nbytes > 2**20:
        raise ValueError("its 'about' is no text of a few lines")
    return names, found["features"], json.loads(about.item())


def _check_read(names: np.ndarray, features: np.ndarray, about: object) -> None:
    """Raises ValueError for what no embeddings are."""
    if features.ndim != 2 or names.ndim != 1 or len(names) != len(features) or not features.size:
        raise ValueError(f"it holds names of shape {names.shape} and features of shape {features.shape}")
    if features.dtype.kind not in "fiu" or names.dtype.kind not in "UO" or not isinstance(about, dict):
        raise ValueError(f"its names are {names.dtype}, its features {features.dtype}")
    for start, rows in _blocks(features):
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            name = printable_text(str(names[start + bad[0]]))
            raise ValueError(f"the features of {name} are not all finite numbers; make it anew without it")
