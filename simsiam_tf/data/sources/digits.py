"""scikit-learn's digits: 1,797 images of 8×8."""

from __future__ import annotations

from typing import Any

import numpy as np

from simsiam_tf.data.sources.base import Source, SourceOptions, from_arrays, open_split


def open_digits(split: str, options: SourceOptions) -> Source:
    """Opens a split of the digits, or a slice of it; every fifth image is in "test"."""
    return open_split("digits", split or options.split, _open_whole)


def _open_whole(split: str) -> Source:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    in_split = (np.arange(len(digits.images)) % 5 == 0) == (split == "test")
    images = np.round(digits.images[in_split] * (255 / 16)).astype(np.uint8)
    return from_arrays(f"digits:{split}", images, digits.target[in_split], map(str, range(10)))
