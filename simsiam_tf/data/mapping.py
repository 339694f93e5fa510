"""Maps datasets over images, many at a time, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from simsiam_tf.data.sources.base import EncodedSource, Source
from simsiam_tf.runtime import cores


def map_each(dataset: tf.data.Dataset, function: Callable, parallel: int | None = None) -> tf.data.Dataset:
    """Maps elements to function(element), `parallel` at a time; None: one."""
    # NOTE: AutoGraph is off: no function here needs it, and its rewriting of all functions took four fifths
    # of the time before the first element.
    return dataset.map(tf.autograph.experimental.do_not_convert(function), parallel)


def map_images(
    dataset: tf.data.Dataset, source: Source, function: Callable, parallel: int | None
) -> tf.data.Dataset:
    """Maps elements (id, …) to function(image, id, …), `parallel` at a time; None: one."""
    if isinstance(source, EncodedSource) and parallel is not None and source.reads_at_once > max(parallel, 0):
        # Reads over a network mostly wait, so that more images are read at a time than are decoded.
        read = map_each(dataset, lambda i, *rest: (source.read(i), i, *rest), source.reads_at_once)
        return map_each(
            read, lambda data, i, *rest: function(source.decode_bytes(data, i), i, *rest), parallel
        )
    return map_each(dataset, lambda i, *rest: function(source.decode(i), i, *rest), parallel)


def with_options(dataset: tf.data.Dataset, source: Source | None = None) -> tf.data.Dataset:
    """The dataset in a fixed order, without tf.data's tuner and its sharding among workers.

    source: the images; the dataset gets a thread for each of its `reads_at_once`.
    """
    options = tf.data.Options()
    reads = getattr(source, "reads_at_once", 0)
    if reads:  # each read takes a thread
        options.threading.private_threadpool_size = reads + cores.decoding_threads()
    options.deterministic = True
    # NOTE: tf.data's tuner delays the end of an iterator by up to minutes, and every epoch of
    # `fit` and every evaluation ends one.
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)
