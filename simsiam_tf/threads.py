"""Threads of TensorFlow, shared out among the views of a step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf

from simsiam_tf import devices

VIEWS = 2  # that a step works on beside each other


def core_a_view() -> bool:
    """On two cores, gives each of a step's two views one of them; False where nothing is changed.

    TensorFlow's default lets every operation of either view have both cores. Its parts then wait for
    each other at the end of each of some hundred small operations, and for the other view's: see
    docs/performance.md. To be called before TensorFlow's first operation, with which the threads are
    there. Left alone are machines of more cores, where it was not measured, those with an accelerator,
    and numbers that were set already, by TF_NUM_INTRAOP_THREADS or tf.config.
    """
    threading = tf.config.threading
    chosen = os.environ.get("TF_NUM_INTRAOP_THREADS") or os.environ.get("TF_NUM_INTEROP_THREADS")
    if chosen or threading.get_intra_op_parallelism_threads() or threading.get_inter_op_parallelism_threads():
        return False
    if _cores() != VIEWS or not devices.on_cpu():
        return False
    try:
        threading.set_intra_op_parallelism_threads(1)
        threading.set_inter_op_parallelism_threads(VIEWS)
    except RuntimeError:  # TensorFlow is at work already
        return False
    return True


def in_halves(encode: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    """The same function of rows [B, …] → [B, …], in a graph that keeps both cores busy with one batch.

    After `core_a_view` an operation has one core, so each half of the rows gets operations of its own.
    """
    if not _one_core_each():
        return encode

    def both(rows: tf.Tensor) -> tf.Tensor:
        count = tf.shape(rows)[0]
        half = (count + 1) // 2
        # Of an odd number the middle row is in both: no half is ever empty, which oneDNN's kernels fail on.
        return tf.concat([encode(rows[:half]), encode(rows[count - half :])[2 * half - count :]], axis=0)

    return both


def for_each(work: Callable[[int], None], items: Iterable[int]) -> None:
    """Calls `work` on each item; after `core_a_view` on two at a time, in threads of Python's.

    work: of TensorFlow's operations for the most part, and independent of the other items.
    """
    if not _one_core_each():
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(VIEWS) as pool:
        for _ in pool.map(work, items):  # raises what `work` raised
            pass


def _one_core_each() -> bool:
    threading = tf.config.threading
    set_to = threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()
    return set_to == (1, VIEWS)


def _cores() -> int:
    """That this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
