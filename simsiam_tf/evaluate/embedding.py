"""Embeddings of images as a file: names, features, and which backbone made them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from simsiam_tf.data import Source
from simsiam_tf.errors import UserError
from simsiam_tf.evaluate import store
from simsiam_tf.evaluate.neighbours import nearest
from simsiam_tf.pretrained import Pretrained

SUFFIXES = (".npz", ".parquet")


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """names: of N images, relative to their folder; features: [N, F]; about: of the backbone and the data."""

    names: np.ndarray
    features: np.ndarray
    about: dict

    def neighbours(self, query: np.ndarray, k: int = 9) -> list[tuple[str, float]]:
        """(name, cosine) of the k images nearest to a feature vector [F], the nearest first."""
        cosines, rows = nearest(self.features, np.asarray(query)[None], k)
        return [(str(self.names[i]), float(s)) for i, s in zip(rows[0], cosines[0], strict=True)]


def embed(
    pretrained: Pretrained, source: Source, folder: Path | None = None, batch_size: int = 256
) -> Embeddings:
    """Features of all images of a source, kept in `folder` so that they are made once (`store`)."""
    pretrained.check(source)
    features = store.stored(pretrained, source, folder, batch_size)
    names = getattr(source, "names", None) or [str(i) for i in range(source.size)]
    about = {
        "data": source.name, "weights": str(pretrained.path.absolute()), "sha256": pretrained.sha256,
        "size": pretrained.recipe.size,
    }  # fmt: skip
    return Embeddings(np.array(names), features, about)


def write(embeddings: Embeddings, path: Path, dtype: str = "float32") -> None:
    """Writes .npz ("names", "features", "about") or .parquet, whole or not at all.

    Raises:
        UserError: another suffix, or it cannot be written.
    """
    check_suffix(path)
    made = path.with_name(f".writing-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npz":
            with open(made, "wb") as file:
                about = np.array(json.dumps(embeddings.about))
                features = np.asarray(embeddings.features, dtype)
                np.savez(file, names=embeddings.names, features=features, about=about)
        else:
            _write_parquet(embeddings, made, dtype)
        made.replace(path)
    except OSError as error:
        made.unlink(missing_ok=True)
        raise UserError(f"--out={path}: cannot be written ({error.strerror}).") from error


def check_suffix(path: Path, flag: str = "out") -> None:
    """Raises UserError for a kind of file that embeddings are not kept in."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"--{flag}={path}: must end in {' or '.join(SUFFIXES)}.")


def read(path: Path) -> Embeddings:
    """What `write` wrote. Nothing in it is run: arrays of objects are refused.

    Raises:
        UserError: missing, damaged, or none of ours.
    """
    check_suffix(path, "embeddings")
    if not path.is_file():
        raise UserError(f"--embeddings={path}: no such file. Make it with python -m simsiam_tf.embed.")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                names, features, about = (arrays[k] for k in ("names", "features", "about"))
                about = json.loads(str(about))
        else:
            names, features, about = _read_parquet(path)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - zip, NumPy and Arrow raise many kinds
        reason = " ".join(str(error).split())[:150]
        raise UserError(f"--embeddings={path}: no embeddings can be read from it ({reason}).") from error
    if features.ndim != 2 or len(names) != len(features) or not isinstance(about, dict):
        raise UserError(f"--embeddings={path}: holds {names.shape} names and {features.shape} features.")
    return Embeddings(names, features, about)


def _parquet():  # noqa: ANN202
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError(
            "--out=….parquet: needs pyarrow: pip install 'simsiam-tf[parquet]'. Or .npz."
        ) from error
    return parquet


def _write_parquet(embeddings: Embeddings, path: Path, dtype: str) -> None:
    parquet = _parquet()
    import pyarrow as pa

    features = np.asarray(embeddings.features, dtype)
    flat = pa.array(features.reshape(-1))
    columns = {
        "name": pa.array(embeddings.names.tolist()),
        "features": pa.FixedSizeListArray.from_arrays(flat, features.shape[1]),
    }
    table = pa.table(columns).replace_schema_metadata({"simsiam_tf": json.dumps(embeddings.about)})
    parquet.write_table(table, path)


def _read_parquet(path: Path) -> tuple[np.ndarray, np.ndarray, dict]:
    table = _parquet().read_table(path)
    column = table.column("features").combine_chunks()
    features = column.values.to_numpy(zero_copy_only=False).reshape(len(table), -1)
    about = json.loads((table.schema.metadata or {}).get(b"simsiam_tf", b"{}"))
    return np.array(table.column("name").to_pylist()), features, about
