"""Shapes that are known while a step is traced."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def static_shape(x: tf.Tensor) -> list[int]:
    """The lengths of the axes of x, which the caller knows to be static; the batch's may be None."""
    lengths: Any = x.shape.as_list()
    return lengths
