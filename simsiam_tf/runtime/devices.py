"""The devices of this process, looked up once, and the memory of the machine."""

from __future__ import annotations

import functools
import os

import tensorflow as tf


@functools.cache
def on_gpu() -> bool:
    """Whether this process has a GPU."""
    return bool(tf.config.list_physical_devices("GPU"))


@functools.cache
def on_cpu() -> bool:
    """Whether this process has neither a GPU nor a TPU."""
    return not (on_gpu() or tf.config.list_physical_devices("TPU"))


def physical_memory() -> int:
    """The memory of the machine in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
