"""Shapes that are known while a step is traced."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def static_shape(x: tf.Tensor) -> list[int]:
    """The lengths of the axes of x; all but the batch's, which may be None, have to be known."""
    lengths: Any = x.shape.as_list()
    return lengths
