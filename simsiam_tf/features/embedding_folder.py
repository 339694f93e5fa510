"""Embeddings as a folder, whose features are memory-mapped and whose names are in Arrow's memory.

features.npy   [N, F], float32 or float16, as `numpy.load(…, mmap_mode="r")` opens it
names.parquet  a column "name"
about.json     a record of the backbone and the images
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from simsiam_tf.features.columns import row_blocks
from simsiam_tf.features.names import ArrowNames, Names
from simsiam_tf.features.npy import read_npy, write_npy
from simsiam_tf.features.parquet import WRITING, import_pyarrow, name_array, read_name_column
from simsiam_tf.runtime.atomic_files import TEMPORARY_FILES, remove_path
from simsiam_tf.runtime.errors import UserError

FILES = FEATURES, NAMES, ABOUT = "features.npy", "names.parquet", "about.json"
MAX_ABOUT_BYTES = 2**20


def write_folder(path: Path, names: Names, features: np.ndarray, about: dict, dtype: np.dtype) -> None:
    """Writes [N] names, [N, F] features as `dtype` and `about`, a block in memory at a time.

    The folder takes the place of an earlier one once it is complete.

    Raises:
        OSError: it cannot be written. UserError: as `check_folder`.
    """
    check_folder(path)
    blocks = ((names[rows], features[rows]) for rows in row_blocks(*features.shape))
    write_blocks(path, features.shape, blocks, about, dtype)


def write_blocks(
    path: Path,
    shape: tuple[int, ...],
    blocks: Iterable[tuple[Names, np.ndarray]],
    about: dict,
    dtype: np.dtype,
) -> None:
    """Writes blocks ([n] names, [n, F] features), which make `shape` = (N, F) together, as `write_folder`."""
    parquet = import_pyarrow("out")
    import pyarrow as pa

    schema = pa.schema([("name", pa.string())])
    new, old = (path.with_name(TEMPORARY_FILES.replace("*", secrets.token_hex(8))) for _ in range(2))
    try:
        new.mkdir()
        with (
            open(new / FEATURES, "xb") as file,
            parquet.ParquetWriter(new / NAMES, schema, **WRITING) as writer,
        ):

            def features() -> Iterator[np.ndarray]:
                for names, rows in blocks:
                    writer.write_table(pa.table([name_array(names)], schema=schema))
                    yield rows

            write_npy(file, shape, dtype, features())
            file.flush()
            os.fsync(file.fileno())
        (new / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        if path.is_dir():
            path.rename(old)
        new.rename(path)
    except BaseException:
        if old.is_dir() and not path.exists():
            old.rename(path)
        remove_path(new)
        raise
    remove_path(old)


def check_folder(path: Path) -> None:
    """Raises UserError where a path is a link or a file, or a folder with other files than embeddings."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise UserError(f"out={path}: is not a folder. Remove it, or choose another place.")
    others = sorted(set(os.listdir(path)) - set(FILES)) if path.is_dir() else []
    if others:
        raise UserError(f"out={path}: is a folder of other files, such as {others[0]}. Choose another place.")


def read_folder(path: Path) -> tuple[ArrowNames, np.ndarray, dict]:
    """Reads ([N] names, [N, F] features, about), the features memory-mapped.

    Raises:
        ValueError: a file is missing or damaged.
    """
    missing = [name for name in FILES if not (path / name).is_file()]
    if missing:
        raise ValueError(f"it is a folder without {missing[0]}, not one that simsiam_tf.embed wrote")
    with open(path / ABOUT, "rb") as file:
        about = file.read(MAX_ABOUT_BYTES + 1)
    if len(about) > MAX_ABOUT_BYTES:
        raise ValueError(f"its {ABOUT} is too long")
    return read_name_column(path / NAMES), read_npy(path / FEATURES), json.loads(about)
