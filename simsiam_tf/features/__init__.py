"""Features of images by a frozen backbone: extracted once, stored in files, searched by cosine."""

from __future__ import annotations

import importlib

_NAMES = {
    "Embeddings": "embedding_file",
    "embed": "image_embeddings",
    "embed_file": "query",
    "extract": "extraction",
    "knn_accuracy": "knn",
    "nearest": "knn",
    "read_embeddings": "embedding_file",
    "write_embeddings": "embedding_file",
}
__all__ = [*_NAMES]  # noqa: PLE0604 - names of functions and classes


def __getattr__(name: str):
    # Lazy, so that a search among stored features needs no TensorFlow.
    if name in _NAMES:
        return getattr(importlib.import_module(f"simsiam_tf.features.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'simsiam_tf.features' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
