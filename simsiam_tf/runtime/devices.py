"""Whether this process has a GPU or a TPU, looked up once."""

from __future__ import annotations

import functools

import tensorflow as tf


@functools.cache
def on_gpu() -> bool:
    """Whether this process has a GPU."""
    return bool(tf.config.list_physical_devices("GPU"))


@functools.cache
def on_cpu() -> bool:
    """Whether this process has neither a GPU nor a TPU."""
    return not (on_gpu() or tf.config.list_physical_devices("TPU"))
