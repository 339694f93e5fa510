"""What this process computes on, asked once."""

from __future__ import annotations

import functools

import tensorflow as tf


@functools.cache
def on_gpu() -> bool:
    """Whether there is a GPU."""
    return bool(tf.config.list_physical_devices("GPU"))


@functools.cache
def on_cpu() -> bool:
    """Whether there is nothing but CPUs."""
    return not (on_gpu() or tf.config.list_physical_devices("TPU"))
