"""Embeddings of images as a file: names, features, and a record of the backbone and the images."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_tf.data import Source
from simsiam_tf.data.sources.folder_check import add_to_report
from simsiam_tf.features import store
from simsiam_tf.features.changed_files import ChangedImages
from simsiam_tf.features.knn import nearest
from simsiam_tf.features.npz import read_npz, write_npz
from simsiam_tf.features.parquet import import_pyarrow, read_parquet, write_parquet
from simsiam_tf.pretrained.pretrained_backbone import Pretrained
from simsiam_tf.runtime.atomic_files import check_writable
from simsiam_tf.runtime.display_text import printable_text
from simsiam_tf.runtime.errors import UserError

SUFFIXES = (".npz", ".parquet")
BLOCK = 2**22  # numbers checked at a time
ROUNDING = 0.01  # largest error allowed in a file, relative to an embedding's largest number


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """names: files of N images, relative to their folder; features: [N, F].

    about: records the backbone ("weights", "sha256"), the source of the images ("data") and their
    preprocessing ("size", "mean", "std"), which a query image gets as well.
    """

    names: np.ndarray
    features: np.ndarray
    about: dict[str, Any]

    def neighbours(self, query: np.ndarray, k: int = 9) -> list[tuple[str, float]]:
        """(name, cosine) of the k images nearest to a feature vector [F], the nearest first.

        Raises:
            UserError: a vector of another width, all zeros, or not finite.
        """
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
        """The row of an image, by its name, or by its name as `printable_text` shows it."""
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
    """Embeddings of all images of a source; the features are stored in `folder` (`store`).

    Args:
        pretrained: the backbone.
        source: the images.
        folder: where features are stored; `store.default_folder` when None.
        batch_size: images at a time.
        on_bad_image: "skip" leaves out images that change or disappear meanwhile, and lists them on stderr.
        report: JSON file of unreadable images, to which the images left out are added.

    Raises:
        UserError: as `store.stored_features`; or the backbone takes another number of channels.
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
        "data": source.name, "weights": str(pretrained.path.absolute()), "sha256": pretrained.sha256,
        "size": augmentation.size, "mean": list(augmentation.mean), "std": list(augmentation.std),
    }  # fmt: skip
    return Embeddings(np.array(names, object), features, about)


def _report_left_out(source: Source, names: list[str], report: Path | None) -> None:
    if report is not None:
        add_to_report(report, names)
    shown = ", ".join(map(printable_text, names[:10]))
    more = f" and {len(names) - 10} more" if names[10:] else ""
    where = f"; named in {report}" if report else ""
    print(
        f"{printable_text(source.name)}: {len(names)} of {source.size} images left out, which changed or "
        f"disappeared while their features were made: {shown}{more}{where}",
        file=sys.stderr,
    )


def check_output(path: Path) -> None:
    """Raises UserError if embeddings could not be written. Call it before extracting them."""
    check_suffix(path)
    if path.suffix == ".parquet":
        import_pyarrow("out")
    with _write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    check_writable(path)


def write_embeddings(embeddings: Embeddings, path: str | Path, dtype: str = "float32") -> None:
    """Writes .npz (arrays "names", "features", "about") or .parquet, atomically.

    Raises:
        UserError: another suffix, the file cannot be written, or `dtype` cannot hold the features.
    """
    path, number_type = Path(path), np.dtype(dtype)
    check_suffix(path)
    names, features, about = embeddings.names, embeddings.features, embeddings.about
    _check_rounding(embeddings, number_type)
    unfinished = path.with_name(f".writing-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with _write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(unfinished, "xb") as file:
                if path.suffix == ".npz":
                    text, longest = np.array(json.dumps(about)), max(map(len, map(str, names)), default=1)
                    strings = np.dtype(f"U{max(1, longest)}")
                    arrays = {"names": (names, strings), "features": (features, number_type)}
                    write_npz(file, arrays | {"about": (text, text.dtype)})
                else:
                    write_parquet(file, names, features, about, number_type)
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


def _check_rounding(embeddings: Embeddings, dtype: np.dtype) -> None:
    """Raises UserError where `dtype` changes features by more than ROUNDING, as float16 does above 65,504."""
    if dtype == embeddings.features.dtype:
        return
    with np.errstate(over="ignore", invalid="ignore"):
        for start, rows in embeddings.blocks():
            exact = np.asarray(rows, np.float64)
            error = np.abs(rows.astype(dtype).astype(np.float64) - exact).max(axis=1)
            bad = np.flatnonzero(~(error <= ROUNDING * np.abs(exact).max(axis=1)))
            if len(bad):
                name = printable_text(str(embeddings.names[start + bad[0]]))
                largest = np.abs(exact[bad[0]]).max()
                raise UserError(
                    f"dtype={dtype}: cannot hold the features of {name}, whose largest is {largest:.3g}. "
                    "Pass dtype=float32."
                )


def check_suffix(path: Path, option: str = "out") -> None:
    """Raises UserError for a suffix other than SUFFIXES."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{option}={printable_text(str(path))}: must end in {' or '.join(SUFFIXES)}.")


def read_embeddings(path: str | Path) -> Embeddings:
    """Reads a file of `write_embeddings` or of another tool: .npz by np.savez, or .parquet.

    "about" may be missing. The features of an .npz are memory-mapped. No object in a file is unpickled, and
    compressed arrays are refused.

    Raises:
        UserError: the file is missing or damaged, has another number of names than of features, or has
            features that are not finite.
    """
    path = Path(path)
    check_suffix(path, "embeddings")
    shown = f"embeddings={printable_text(str(path))}"
    if not path.is_file():
        raise UserError(f"{shown}: no such file. Make it with python -m simsiam_tf.embed.")
    try:
        embeddings = Embeddings(*(_read_npz(path) if path.suffix == ".npz" else read_parquet(path)))
        _check_content(embeddings)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - zip, NumPy and Arrow raise many types
        reason = printable_text(" ".join(str(error).split())[:200])
        raise UserError(f"{shown}: no embeddings can be read from it ({reason}).") from error
    return embeddings


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray, dict]:
    arrays = read_npz(path, ("names", "features", "about"))
    for key in ("names", "features"):
        if key not in arrays:
            raise ValueError(f"it has no array {key!r}")
    names, about = arrays["names"], arrays.get("about", np.array("{}"))
    if names.dtype.kind == "S":
        names = np.array([os.fsdecode(name) for name in names.tolist()], object)
    elif names.dtype.kind in "iu":
        names = names.astype(str)
    if about.size != 1 or about.dtype.kind not in "SU" or about.nbytes > 2**20:
        raise ValueError("its 'about' is not a short text")
    return names, arrays["features"], json.loads(about.item())


def _check_content(embeddings: Embeddings) -> None:
    """Raises ValueError for arrays of wrong shapes or types, and features that are not finite."""
    names, features = embeddings.names, embeddings.features
    if features.ndim != 2 or names.ndim != 1 or len(names) != len(features) or not features.size:
        raise ValueError(f"it holds names of shape {names.shape} and features of shape {features.shape}")
    text = names.dtype.kind in "UO" and isinstance(embeddings.about, dict)
    if not text or features.dtype.kind not in "fiu":
        raise ValueError(f"its names are {names.dtype}, its features {features.dtype}")
    for start, rows in embeddings.blocks():
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            name = printable_text(str(names[start + bad[0]]))
            raise ValueError(
                f"the features of {name} are not all finite numbers; embed again without that image"
            )
