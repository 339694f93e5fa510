"""Fashion-MNIST: 60,000 + 10,000 images of 28×28, from Debian's package where installed, else from TFDS."""

from __future__ import annotations

import functools
import gzip
import os
from pathlib import Path

import numpy as np

from simsiam_tf.data.sources.base import Source, SourceOptions, from_arrays, open_split
from simsiam_tf.runtime.errors import UserError

FOLDERS = ("/usr/share/datasets/fashion-mnist", "/usr/local/share/datasets/fashion-mnist")
CLASS_NAMES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot",
)  # fmt: skip


def open_fashion_mnist(split: str, options: SourceOptions) -> Source:
    """Opens a split, or a slice of it. Looks first in the folder $FASHION_MNIST_DIR, if that is set."""
    open_whole = functools.partial(_open_whole, data_dir=options.data_dir)
    return open_split("fashion_mnist", split or options.split, open_whole)


def _open_whole(split: str, data_dir: str | None) -> Source:
    prefix = "t10k" if split == "test" else "train"
    for root in filter(None, (os.environ.get("FASHION_MNIST_DIR"), *FOLDERS)):
        path = Path(root) / f"{prefix}-images-idx3-ubyte.gz"
        if path.exists():
            images, labels = _read_idx(path), _read_idx(path.with_name(f"{prefix}-labels-idx1-ubyte.gz"))
            return from_arrays(f"fashion_mnist:{split}", images, labels, CLASS_NAMES)
    try:
        from simsiam_tf.data.sources import tfds_sets  # takes seconds to import

        return tfds_sets.open_set("fashion_mnist", split, data_dir)
    except UserError as error:
        raise UserError(
            f"fashion_mnist: not in {FOLDERS[0]} (apt-get install dataset-fashion-mnist), and the "
            f"download failed: {error}"
        ) from error


def _read_idx(path: Path) -> np.ndarray:
    """Reads an IDX file, the format of MNIST: magic with the rank, big-endian sizes, bytes."""
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: unreadable ({error}). Install the data set again.") from error
    rank = data[3]
    shape = np.frombuffer(data, ">u4", rank, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)
