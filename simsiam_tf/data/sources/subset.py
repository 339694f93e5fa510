"""Parts of a source, with ids of their own."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import tensorflow as tf

from simsiam_tf.data.sources.open_source import ArraySource, EncodedSource, Labels, Source, from_arrays


def subset(source: Source, ids: np.ndarray, name: str | None = None) -> Source:
    """The source whose image i is image ids[i] of another.

    Args:
        source: where the images are.
        ids: int [n], n ≥ 1, in any order.
        name: of the part; "SOURCE[n of N]" when None.
    """
    ids = np.asarray(ids, np.int64)
    name = name or f"{source.name}[{len(ids)} of {source.size}]"
    if isinstance(source, ArraySource):
        labels = None if source.labels is None else source.labels[ids]
        return from_arrays(name, source.images[ids], labels, source.class_names)
    chosen = tf.constant(ids)
    labels = source.labels
    if labels is not None:
        labels = labels[ids] if isinstance(labels, np.ndarray) else _Part(labels, ids)
    digest = hashlib.sha256(source.fingerprint.encode() + ids.tobytes()).hexdigest()[:16]
    if not isinstance(source, EncodedSource):
        raise TypeError(f"{source.name}: no part can be taken of a {type(source).__name__}.")
    read, names = source.read, source.names and tuple(source.names[i] for i in ids)
    digests = source.digests[ids] if names and source.digests is not None else source.digests
    return dataclasses.replace(
        source, name=name, size=len(ids), labels=labels, fingerprint=digest,
        read=lambda index: read(tf.gather(chosen, index)), names=names, digests=digests,
    )  # fmt: skip


class _Part:
    """Labels of a part, read of the whole when they are asked for."""

    def __init__(self, labels: Labels, ids: np.ndarray) -> None:
        self._labels, self._ids = labels, ids

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, ids: np.ndarray) -> np.ndarray:
        return self._labels[self._ids[ids]]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[np.arange(len(self))], dtype)
