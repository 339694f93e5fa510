"""Data sets of Hugging Face, by name or folder, through its library `datasets`."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np

from simsiam_tf.data.sources.addresses import read_bytes
from simsiam_tf.data.sources.archives import NO_LABEL
from simsiam_tf.data.sources.base import MissingSplit
from simsiam_tf.data.sources.members import Members
from simsiam_tf.data.sources.tables import LABEL_COLUMNS
from simsiam_tf.runtime.errors import UserError, nearest


def hugging_face_members(rest: str, split: str) -> Members:
    """The images of a data set of Hugging Face, labelled by a column of classes.

    rest: NAME or NAME:SPLIT; NAME may be a folder. split: the split where `rest` names none.

    Raises:
        UserError: the library is missing, the set or its split cannot be loaded, or it has no images.
    """
    place, _, own_split = rest.partition(":")
    name, split = f"hf:{rest}", own_split or split
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{name}: needs datasets: pip install 'simsiam-tf[hf]'.") from error
    try:
        table = _load(name, place, split)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - the library raises many types
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        kind = MissingSplit if reason.startswith("Unknown split") else UserError
        raise kind(f"{name}: cannot be loaded ({reason}).") from error
    column = next((key for key, kind in table.features.items() if isinstance(kind, datasets.Image)), None)
    if column is None:
        listed = ", ".join(f"{key} ({type(kind).__name__})" for key, kind in table.features.items())
        raise UserError(f"{name}: has no column of images, but {listed}.")
    label = next((c for c in LABEL_COLUMNS if isinstance(table.features.get(c), datasets.ClassLabel)), None)
    cells = table.select_columns([column]).cast_column(column, datasets.Image(decode=False))

    def read(i: int) -> bytes:
        cell = cells[i][column]
        if cell is None:
            raise ValueError("no image in this row")
        return cell["bytes"] if cell["bytes"] is not None else read_bytes(cell["path"])

    version = int.from_bytes(hashlib.sha256(table._fingerprint.encode()).digest()[:7], "big")
    labels = [NO_LABEL if value is None else value for value in table[label]] if label else None
    full_name, states = f"hf:{place}:{split}", np.tile(np.array([1, version, 0]), (len(table), 1))
    return Members(
        full_name, [f"{i:08d}" for i in range(len(table))], states, read, full_name,
        None if labels is None else np.array(labels, np.int64),
        tuple(table.features[label].names) if label else (), sizes=np.zeros(len(table), np.int64),
    )  # fmt: skip


def _load(name: str, place: str, split: str) -> Any:
    """The `datasets.Dataset` of a split."""
    import datasets

    if not os.path.isfile(os.path.join(place, "state.json")):
        return datasets.load_dataset(place, split=split)
    table: Any = datasets.load_from_disk(place)  # one split, written by `Dataset.save_to_disk`
    saved = str(table.split or "train")
    if split != saved:
        raise MissingSplit(f"{name}: no such split.{nearest(split, [saved])}")
    return table
