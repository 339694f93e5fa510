"""Embeddings of images as a file: names, features, and a record of the backbone and the images."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_tf.config.places import absolute_path
from simsiam_tf.data import Source
from simsiam_tf.data.sources.base import EncodedSource
from simsiam_tf.data.sources.unreadable import add_to_report
from simsiam_tf.features import store
from simsiam_tf.features.changed_files import ChangedImages
from simsiam_tf.features.knn import nearest
from simsiam_tf.features.npz import read_npz, write_npz
from simsiam_tf.features.parquet import import_pyarrow, read_parquet, write_parquet
from simsiam_tf.pretrained.pretrained_backbone import Pretrained
from simsiam_tf.runtime.atomic_files import atomic_file, check_writable
from simsiam_tf.runtime.display_text import one_line, printable_text
from simsiam_tf.runtime.errors import UserError

WRITERS = {".npz": write_npz, ".parquet": write_parquet}
READERS = {".npz": read_npz, ".parquet": read_parquet}
BLOCK = 2**22  # numbers checked at a time
ROUNDING = 0.01  # largest rounding error allowed in a file, relative to an embedding's largest number


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """Features of N images: names [N], features [N, F].

    names: files relative to their folder; ids where a set has no names. about: records the backbone
    ("weights", "sha256"), the source of the images ("data") and their preprocessing ("size", "mean", "std";
    "pixels" for encoded images), which a query image gets as well.
    """

    names: np.ndarray
    features: np.ndarray
    about: dict[str, Any]

    def neighbours(self, query: np.ndarray, k: int = 9) -> list[tuple[str, float]]:
        """(name, cosine) of the k images (at most N) nearest to a feature vector [F], the nearest first."""
        query, width = np.asarray(query), self.features.shape[1]
        if query.shape != (width,):
            raise UserError(
                f"the query's features have shape {query.shape}, those of the embeddings ({width},). Take "
                "the backbone that made the embeddings, or embed anew."
            )
        if not np.isfinite(query).all() or not query.any():
            raise UserError("the query's features are all 0 or not all finite; no image is near to them.")
        cosines, rows = nearest(self.features, query[None], k)
        return [(str(self.names[i]), float(s)) for i, s in zip(rows[0], cosines[0], strict=True)]

    def row(self, name: str) -> int | None:
        """The row of an image by its name, also as `printable_text` shows the name; None if there is none."""
        rows = np.flatnonzero(self.names == name)
        if not len(rows) and "\\" in name:
            rows = np.flatnonzero([printable_text(str(n)) == name for n in self.names])
        return int(rows[0]) if len(rows) else None

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, rows) of all features, a block at a time."""
        step = max(1, BLOCK // self.features.shape[1])
        for start in range(0, len(self.features), step):
            yield start, self.features[start : start + step]


def embed(
    pretrained: Pretrained,
    source: Source,
    folder: Path | None = None,
    batch_size: int = 256,
    on_bad_image: str = "error",
    report: Path | None = None,
) -> Embeddings:
    """Embeddings of all images of a source, which must have as many channels as the backbone takes.

    Args:
        folder, batch_size: as for `store.stored_features`, which extracts the features.
        on_bad_image: "skip" leaves out images that change or disappear meanwhile, and names them on stderr;
            "error" raises `ChangedImages`.
        report: JSON file of unreadable images, to which those left out are added; None for no file.
    """
    pretrained.check_channels(source)
    try:
        features = store.stored_features(pretrained, source, folder, batch_size)
    except ChangedImages as error:
        if on_bad_image != "skip":
            raise
        _report_left_out(source, error.names, report)
        source = error.rest
        features = store.stored_features(pretrained, source, folder, batch_size)
    names = getattr(source, "names", None) or [str(i) for i in range(source.size)]
    augmentation = pretrained.augmentation
    about = {
        "data": source.name, "weights": absolute_path(pretrained.place), "sha256": pretrained.sha256,
        "size": augmentation.size, "mean": list(augmentation.mean), "std": list(augmentation.std),
    }  # fmt: skip
    if isinstance(source, EncodedSource):
        about["pixels"] = source.rule.options()
    return Embeddings(np.array(names, object), features, about)


def _report_left_out(source: Source, names: list[str], report: Path | None) -> None:
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


def check_output(path: Path) -> None:
    """Makes the folder of a file of embeddings. Raises UserError if the file could not be written."""
    _check_suffix(path)
    if path.suffix == ".parquet":
        import_pyarrow("out")
    with _write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    check_writable(path)


def write_embeddings(embeddings: Embeddings, path: str | Path, dtype: str = "float32") -> None:
    """Writes .npz (arrays "names", "features", "about") or .parquet, atomically.

    Raises:
        UserError: another suffix, a file that cannot be written, or features that `dtype` cannot hold.
    """
    path, number_type = Path(path), np.dtype(dtype)
    _check_suffix(path)
    _check_rounding(embeddings, number_type)
    with _write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            WRITERS[path.suffix](file, embeddings.names, embeddings.features, embeddings.about, number_type)


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"out={path}: cannot be written ({error.strerror}). Make room or choose another place."
        ) from error


def _check_rounding(embeddings: Embeddings, dtype: np.dtype) -> None:
    """Raises UserError where `dtype` rounds features by more than ROUNDING, as float16 does above 65,504."""
    if dtype == embeddings.features.dtype:
        return
    for start, rows in embeddings.blocks():
        largest = np.abs(rows).max(axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            error = np.abs(rows.astype(dtype) - rows).max(axis=1)
        bad = np.flatnonzero(~(error <= ROUNDING * largest))
        if len(bad):
            name = printable_text(str(embeddings.names[start + bad[0]]))
            raise UserError(
                f"dtype={dtype}: cannot hold the features of {name}, whose largest is {largest[bad[0]]:.3g}. "
                "Pass dtype=float32."
            )


def _check_suffix(path: Path, option: str = "out") -> None:
    if path.suffix not in READERS:
        raise UserError(f"{option}={printable_text(str(path))}: must end in {' or '.join(READERS)}.")


def read_embeddings(path: str | Path) -> Embeddings:
    """Reads a file of `write_embeddings` or of another tool: .npz by np.savez, or .parquet.

    "about" may be missing. The features of an .npz are memory-mapped. Pickled objects and compressed arrays
    in it are refused. Raises UserError where the file is missing or holds no embeddings.
    """
    path = Path(path)
    _check_suffix(path, "embeddings")
    shown = f"embeddings={printable_text(str(path))}"
    if not path.is_file():
        raise UserError(f"{shown}: no such file. Make it with python -m simsiam_tf.embed.")
    try:
        embeddings = Embeddings(*READERS[path.suffix](path))
        _check_content(embeddings)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - zip, NumPy and Arrow raise many types
        raise UserError(f"{shown}: no embeddings can be read from it ({one_line(error)[:200]}).") from error
    return embeddings


def _check_content(embeddings: Embeddings) -> None:
    """Raises ValueError for arrays of wrong shapes or types, and features that are not finite."""
    names, features = embeddings.names, embeddings.features
    shapes_fit = features.ndim == 2 and features.size and names.shape == features.shape[:1]
    types_fit = names.dtype.kind in "UO" and features.dtype.kind in "fiu"
    if not (shapes_fit and types_fit and isinstance(embeddings.about, dict)):
        raise ValueError(
            f"it holds names of type {names.dtype} and shape {names.shape}, features of type "
            f"{features.dtype} and shape {features.shape}, and {type(embeddings.about).__name__} as 'about'"
        )
    for start, rows in embeddings.blocks():
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            name = printable_text(str(names[start + bad[0]]))
            raise ValueError(
                f"the features of {name} are not all finite numbers; embed again without that image"
            )
