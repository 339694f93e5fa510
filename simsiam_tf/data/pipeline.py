"""tf.data pipelines: views of steps for training, centred images for evaluation."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import tensorflow as tf

from simsiam_tf.data import sampling
from simsiam_tf.data.augment.views import Views
from simsiam_tf.data.sources.open_source import ArraySource, Source

PARALLEL = os.cpu_count() or 2  # None: one after the other
ENDLESS = 2**40  # steps that no training takes
AHEAD = 2  # steps made before they are asked for
PIECE = 8 * 224 * 224  # pixels of a view finished at a time: what a processor's cache holds


def views_of_steps(
    source: Source,
    views: Views,
    batch_size: int,
    seed: int,
    first_step: int | tf.Tensor,
    last_step: int | tf.Tensor,
    rows: tuple[int, int] | None = None,
    parts: int = 1,
    finished: bool = True,
) -> tf.data.Dataset:
    """Batches of steps [first_step, last_step), a function of their numbers alone.

    Args:
        source: where images come from.
        views: the augmentation.
        batch_size: the global batch.
        seed: of order and draws.
        first_step, last_step: integers or scalar tensors.
        rows: the slice [a, b) of each global batch that this process wants; all by default.
        parts: elements that a step's rows are cut into, one a replica.
        finished: False leaves the batch stage to `finish`, called on the accelerator.

    Yields:
        {"views": `views.count` × float32 [b − a over parts, S, S, C], "index": int64 ids}, or
        unfinished {"crops": the same in uint8, "draws": their uniforms, "index"}.
    """
    first = tf.cast(first_step, tf.int64) * parts
    elements = tf.data.Dataset.range(first, tf.cast(last_step, tf.int64) * parts)
    dataset = numbered(elements, source, views, batch_size, seed, rows, parts, finished)
    return ahead(_map(dataset, lambda n, batch: batch))


def numbered(
    elements: tf.data.Dataset,
    source: Source,
    views: Views,
    batch_size: int,
    seed: int,
    rows: tuple[int, int] | None = None,
    parts: int = 1,
    finished: bool = True,
    parallel: int | None = 0,
) -> tf.data.Dataset:
    """Element numbers, in any order → (number, batch), each a function of its number alone.

    Element n is part n % parts of step n // parts; all else is as for `views_of_steps`. Every
    number is read once and goes through one chain of maps, so that several machines can share
    the numbers out among them.

    parallel: images and pieces made at a time; 0: PARALLEL.
    """
    parallel = PARALLEL if parallel == 0 else parallel
    start, stop = rows or (0, batch_size)
    share = (stop - start) // parts
    piece = piece_of(share, views.augmentation.size)

    def rows_of(n):
        """Element n → number, ids and draws of each of its rows."""
        step, at = n // parts, start + n % parts * share
        ids = sampling.example_ids(seed, step, batch_size, source.size)
        u = sampling.uniforms(seed, step, batch_size, views.draws)
        return tf.fill([share], n), tf.ensure_shape(ids[at : at + share], [share]), u[at : at + share]

    def last(crops, n, ids, u):
        batch = {"crops": crops, "draws": u, "index": ids}
        return n, finish(views, batch) if finished else batch

    dataset = _map(elements, rows_of)
    if isinstance(source, ArraySource):
        dataset = _split(dataset, piece)
        dataset = _map(dataset, lambda n, i, u: last(views.crop(source.gather(i), u), n, i, u), parallel)
    else:
        dataset = _map(dataset, lambda n, i, u: (n, i, u, views.candidates(u))).unbatch()
        one = lambda n, i, u, drawn: (views.crop_one(source.decode(i), drawn), n, i, u)  # noqa: E731
        dataset = _map(dataset, one, parallel).batch(piece, drop_remainder=True)
        dataset = _map(dataset, last, parallel)
    return _map(joined(dataset, share // piece), lambda n, batch: (n[0], batch))


def piece_of(rows: int, size: int) -> int:
    """The largest divisor of `rows` that keeps a piece within PIECE pixels."""
    return max(n for n in range(1, rows + 1) if rows % n == 0 and (n * size**2 <= PIECE or n == 1))


def _split(dataset: tf.data.Dataset, piece: int) -> tf.data.Dataset:
    """Elements of rows → elements of `piece` rows."""
    shaped = lambda x: tf.reshape(x, tf.concat([[-1, piece], tf.shape(x)[1:]], axis=0))  # noqa: E731
    return _map(dataset, lambda *rows: tf.nest.map_structure(shaped, rows)).unbatch()


def joined(dataset: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """The way back: `count` elements → one."""
    if count == 1:
        return dataset

    def flat(x: tf.Tensor) -> tf.Tensor:
        return tf.reshape(x, [x.shape[0] * x.shape[1], *x.shape[2:]])

    batched = dataset.batch(count, drop_remainder=True)
    whole = lambda *batch: tf.nest.map_structure(flat, batch if len(batch) > 1 else batch[0])  # noqa: E731
    return _map(batched, whole)


def finish(views: Views, batch: dict) -> dict:
    """The batch stage: {"crops", "draws", "index"} → {"views", "index"}. Finished ones pass."""
    if "views" in batch:
        return batch
    return {"views": views.finish(batch["crops"], batch["draws"]), "index": batch["index"]}


def pretraining(
    source: Source, views: Views, batch_size: int, seed: int = 0, first_epoch: int = 0
) -> tf.data.Dataset:
    """Views for Keras' `fit`: iterating again gives the next epoch, not the same one.

    Its length is the number of whole batches in an epoch. Iterating counts epochs from `first_epoch`. The
    `fit` of this package's models counts the optimizer's steps instead, by the dataset's attribute `stream`:
    the batches from a step on, without an end. What `map` or `take` make of the dataset has none.
    """
    length = source.size // batch_size
    if length == 0:
        raise ValueError(
            f"A batch of {batch_size} is larger than {source.name}, which has {source.size} "
            f"images. Try batch_size={source.size} or less."
        )
    epochs = itertools.count(first_epoch)

    def steps_from(first: Callable[[], int], count: int) -> tf.data.Dataset:
        def steps(_):
            start = tf.numpy_function(first, [], tf.int64)
            return views_of_steps(source, views, batch_size, seed, start, start + count)

        return _settled(tf.data.Dataset.range(1).flat_map(steps))

    def stream(first: Callable[[], int] = lambda: 0) -> tf.data.Dataset:
        """From the step that `first` gives at the first batch; from `first_epoch` where that is 0."""
        return steps_from(lambda: first() or first_epoch * length, ENDLESS)

    dataset = steps_from(lambda: next(epochs) * length, length)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(length))
    dataset.stream = stream
    return dataset


def centred(source: Source, views: Views, ids, batch_size: int = 256) -> tf.data.Dataset:
    """Normalised centre views of the given examples, in order: float32 [≤ batch, S, S, C]."""
    dataset = tf.data.Dataset.from_tensor_slices(tf.cast(ids, tf.int64))
    if isinstance(source, ArraySource):
        dataset = dataset.batch(batch_size)
        dataset = _map(dataset, lambda i: views.centre(source.gather(i)), PARALLEL)
    else:
        dataset = _map(dataset, lambda i: views.centre(source.decode(i)), PARALLEL)
        dataset = dataset.batch(batch_size)
    return _settled(_map(dataset, views.normalise)).prefetch(2)


def _map(dataset: tf.data.Dataset, function: Callable, parallel: int | None = None) -> tf.data.Dataset:
    # NOTE: nothing here branches on a tensor, and to let AutoGraph rewrite all that is called
    # took four fifths of the time that a pipeline needs before its first element.
    return dataset.map(tf.autograph.experimental.do_not_convert(function), parallel)


def ahead(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The end of every training pipeline: in order, and made before it is asked for."""
    dataset = _settled(dataset)
    return dataset.prefetch(AHEAD) if AHEAD else dataset


def _settled(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    # NOTE: tf.data's tuner delays the end of an iterator by up to minutes, and every epoch of
    # `fit` and every evaluation ends one.
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)


def take(dataset: tf.data.Dataset, n: int) -> Iterator:
    """The first n elements as NumPy, without leaving a pipeline running."""
    return dataset.take(n).as_numpy_iterator()
