"""Embeddings of images as files: names, features, and a record of the backbone and the images."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_tf.features.columns import Columns, row_blocks
from simsiam_tf.features.embedding_folder import check_folder, read_folder, write_folder
from simsiam_tf.features.embedding_shards import is_shards, read_shards
from simsiam_tf.features.knn import nearest
from simsiam_tf.features.names import ArrowNames, read_names, row_numbers, rows_named
from simsiam_tf.features.npy import read_npy
from simsiam_tf.features.npz import read_npz, write_npz
from simsiam_tf.features.parquet import import_pyarrow, read_parquet, write_parquet
from simsiam_tf.runtime.atomic_files import atomic_file, check_writable
from simsiam_tf.runtime.display_text import one_line, printable_text
from simsiam_tf.runtime.errors import UserError

WRITERS = {".npz": write_npz, ".parquet": write_parquet}
READERS = {".npz": read_npz, ".parquet": read_parquet}
ROUNDING = 0.01  # largest rounding error allowed in a file, relative to an embedding's largest number


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """Features of N images: names [N], features [N, F].

    names: files relative to their folder; ids where a set has no names. about: records the backbone
    ("weights", "sha256"), the source of the images ("data") and their preprocessing ("size", "mean", "std";
    "pixels" for encoded images), which a query image gets as well.
    """

    names: np.ndarray | ArrowNames
    features: np.ndarray
    about: dict[str, Any]

    def neighbours(self, query: np.ndarray, k: int = 9) -> list[tuple[str, float]]:
        """(name, cosine) of the k images (at most N) nearest to a feature vector [F], the nearest first."""
        self.check_query(query)
        cosines, rows = nearest(self.features, np.asarray(query)[None], k)
        return [(str(self.names[i]), float(s)) for i, s in zip(rows[0], cosines[0], strict=True)]

    def check_query(self, query: np.ndarray) -> None:
        """Raises UserError for a feature vector of another width, of zeros, or with a NaN or an infinity."""
        query, width = np.asarray(query), self.features.shape[1]
        if query.shape != (width,):
            raise UserError(
                f"the query's features have shape {query.shape}, those of the embeddings ({width},). Take "
                "the backbone that made the embeddings, or embed anew."
            )
        if not np.isfinite(query).all() or not query.any():
            raise UserError("the query's features are all 0 or not all finite; no image is near to them.")

    def row(self, name: str) -> int | None:
        """The row of an image by its name, also as `printable_text` shows the name; None if there is none."""
        rows = rows_named(self.names, name)
        return int(rows[0]) if len(rows) else None

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, rows) of all features, a block at a time."""
        for rows in row_blocks(*self.features.shape):
            yield rows.start, self.features[rows]


def check_output(path: Path) -> None:
    """Makes the folder in which embeddings are to lie. Raises UserError if they could not be written."""
    _check_suffix(path)
    if path.suffix != ".npz":
        import_pyarrow("out")
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix:
        check_writable(path)
    else:
        check_folder(path)
        check_writable(path.parent / "features.npy", advice="Choose another place than this folder.")


def write_embeddings(embeddings: Embeddings, path: str | Path, dtype: str = "float32") -> None:
    """Writes embeddings as .npz (arrays "names", "features", "about"), .parquet or a folder.

    An earlier file or folder (`embedding_folder`) of this path is replaced once the new one is complete. A
    block of features is in memory at a time.

    Raises:
        UserError: another suffix, a file that cannot be written, or features that `dtype` cannot hold.
    """
    path, number_type = Path(path), np.dtype(dtype)
    _check_suffix(path)
    check_rounding(embeddings, number_type)
    content = embeddings.names, embeddings.features, embeddings.about, number_type
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.suffix:
            write_folder(path, *content)
            return
        with atomic_file(path) as file:
            WRITERS[path.suffix](file, *content)


@contextlib.contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Raises UserError where the block cannot write `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"out={path}: cannot be written ({error.strerror}). Make room or choose another place."
        ) from error


def check_rounding(embeddings: Embeddings, dtype: np.dtype) -> None:
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


def _check_suffix(path: Path) -> None:
    if path.suffix not in ("", *WRITERS):
        raise UserError(
            f"out={printable_text(str(path))}: must end in {' or '.join(WRITERS)}, or in / for a folder."
        )


def read_embeddings(
    path: str | Path,
    features_column: str | None = None,
    names_column: str | None = None,
    names: str | Path | None = None,
    option: str = "embeddings",
) -> Embeddings:
    """Reads what `write_embeddings` or another tool wrote: .npz by np.savez, .npy, .parquet, or a folder.

    Features are memory-mapped: those of .npz, .npy and a folder in place, those of a folder of shards in a
    copy that is written once. Those of .parquet are read into memory. Without names, images are named by the
    numbers of their rows. Without a record of the backbone, "about" is empty. Pickled objects and compressed
    arrays are refused.

    Args:
        features_column, names_column: arrays of an .npz or columns of a .parquet; when None, "features" and
            "names" (or "name"), or else the only 2-D array (column of lists) of floating point and the only
            1-D array (column) of text.
        names: text file of names, a line each, instead of those in the file.
        option: name of the option that gave `path`, for messages.

    Raises:
        UserError: the file is missing, holds no embeddings, or several of its columns would do.
    """
    path = Path(path)
    shown = f"{option}={printable_text(str(path))}"
    columns = Columns(shown, features_column, names_column)
    if not path.is_dir() and path.suffix not in (".npy", *READERS):
        raise UserError(f"{shown}: must end in .npz, .npy or .parquet, or be a folder that embed wrote.")
    if not path.exists():
        raise UserError(f"{shown}: no such file. Make it with python -m simsiam_tf.embed.")
    unused = {"features_column": features_column, "names_column": names_column}
    for column, value in unused.items() if path.is_dir() or path.suffix == ".npy" else ():
        if value is not None:
            raise UserError(f"{column}={value}: has no effect with {shown}. Leave it out.")
    try:
        if path.is_dir():
            embeddings = Embeddings(*(read_shards if is_shards(path) else read_folder)(path))
        elif path.suffix == ".npy":
            features = read_npy(path)
            embeddings = Embeddings(row_numbers(len(features)), features, {})
        else:
            embeddings = Embeddings(*READERS[path.suffix](path, columns))
        if names is not None:
            embeddings = dataclasses.replace(embeddings, names=_listed_names(names, embeddings))
        _check_content(embeddings)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - zip, NumPy and Arrow raise many types
        raise UserError(f"{shown}: no embeddings can be read from it ({one_line(error)[:200]}).") from error
    return embeddings


def _listed_names(file: str | Path, embeddings: Embeddings) -> np.ndarray:
    names = read_names(file)
    if len(names) != len(embeddings.features):
        raise UserError(
            f"names={file}: has {len(names)} lines, the embeddings {len(embeddings.features)} rows. Pass a "
            "file with the name of each row on a line."
        )
    return names


def _check_content(embeddings: Embeddings) -> None:
    """Raises ValueError for arrays of wrong shapes or types, and features that are not finite."""
    names, features = embeddings.names, embeddings.features
    name_type, shape = getattr(names, "dtype", np.dtype(object)), getattr(names, "shape", (len(names),))
    shapes_fit = features.ndim == 2 and features.size and shape == features.shape[:1]
    types_fit = name_type.kind in "UO" and features.dtype.kind in "fiu"
    if not (shapes_fit and types_fit and isinstance(embeddings.about, dict)):
        raise ValueError(
            f"it holds names of type {name_type} and shape {shape}, features of type {features.dtype} and "
            f"shape {features.shape}, and {type(embeddings.about).__name__} as 'about'"
        )
    for start, rows in embeddings.blocks():
        if rows.dtype.kind == "f" and rows.dtype.itemsize >= 4:
            with np.errstate(over="ignore", invalid="ignore"):
                if np.isfinite(rows @ np.ones(rows.shape[1], rows.dtype)).all():  # one pass, by BLAS
                    continue
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            name = printable_text(str(names[start + bad[0]]))
            raise ValueError(
                f"the features of {name} are not all finite numbers; embed again without that image"
            )
