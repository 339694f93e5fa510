"""Views made by the data workers of a tf.data service, as one process would make them.

The dispatcher deals the numbers of elements out, each to one data worker; `Ordered` puts what they
make in order again.
"""

from __future__ import annotations

import queue
import re
import secrets
import socket
from collections.abc import Iterator

import tensorflow as tf

from simsiam_tf.data import pipeline
from simsiam_tf.data.augment.views import Views
from simsiam_tf.data.service.reorder import Arrivals, Ordered
from simsiam_tf.data.sources.open_source import ArraySource, Source
from simsiam_tf.runtime.errors import LostWorker, UserError

START_SECONDS = 5, 60  # until the dispatcher answers, and a first data worker does
UNIT = 2**24  # bytes that are sent at a time, or one piece
HELD = 256  # the most units that wait here for an earlier one
ARRAY_BYTES = 2**29  # of an array, which every process of the service takes several times in memory
ENDLESS = 2**62
PYTHON = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}


def views_of_steps(
    address: str,
    source: Source,
    views: Views,
    batch_size: int,
    seed: int,
    first_step: int,
    last_step: int,
    rows: tuple[int, int] | None = None,
    parts: int = 1,
    finished: bool = True,
) -> tf.data.Dataset:
    """`pipeline.views_of_steps`, made by the data workers of the dispatcher at `address`.

    Every element comes exactly once and in order, whichever data workers come, go or are lost
    meanwhile. It is the same to the bit where they compute as this process does: the same
    versions on the same kind of processor. `failure` reads what iterating raises.
    """

    start, stop = rows or (0, batch_size)
    units = _units((stop - start) // parts, views, source.channels, finished)

    def made(numbers: tf.data.Dataset, parallel: int | None = 0) -> tf.data.Dataset:
        return pipeline.numbered(
            numbers, source, views, batch_size, seed, rows, parts * units, finished, parallel
        )  # fmt: skip

    def job(first: int, token: int) -> tf.data.Dataset:
        token = tf.constant(token, tf.int64)
        # It has no end: later units are what a lost one is noticed by.
        dataset = made(tf.data.Dataset.range(first, ENDLESS), tf.data.AUTOTUNE)
        return _dealt(address, dataset.map(lambda n, batch: (token, n, batch)))

    def here(n: int) -> dict:
        return next(iter(made(tf.data.Dataset.range(n, n + 1))))[1]

    opened: dict[int, Ordered] = {}

    def numbers() -> Iterator[tuple[int, int]]:
        """What one iterator is to get. TensorFlow closes this with the iterator, and so the job."""
        key = secrets.randbits(62)
        opened[key] = Ordered(f"data_service={address}", job, here, lambda: not refusal(address), HELD)
        try:
            for n in range(first_step * parts * units, last_step * parts * units):
                yield key, n
        finally:
            opened.pop(key).close()

    spec = _spec((stop - start) // (parts * units), views, source.channels, finished)
    flat = tf.nest.flatten(spec)

    @tf.autograph.experimental.do_not_convert
    def unit(key: tf.Tensor, n: tf.Tensor) -> dict:
        get = lambda key, n: tf.nest.flatten(opened[int(key)].get(int(n)))  # noqa: E731
        got = tf.py_function(get, [key, n], [s.dtype for s in flat])
        shaped = [tf.ensure_shape(t, s.shape) for t, s in zip(got, flat, strict=True)]
        return tf.nest.pack_sequence_as(spec, shaped)

    scalar = tf.TensorSpec([], tf.int64)
    asked = tf.data.Dataset.from_generator(numbers, output_signature=(scalar, scalar))
    return pipeline.ahead(pipeline.joined(asked.map(unit), units))


def _units(rows: int, views: Views, channels: int, finished: bool) -> int:
    """How many a part's rows are sent in: whole pieces, so that they are computed as elsewhere."""
    piece = pipeline.piece_of(rows, views.augmentation.size)
    size = piece * views.count * views.augmentation.size**2 * channels * (4 if finished else 1)
    pieces = rows // piece
    whole = [n for n in range(1, pieces + 1) if pieces % n == 0]
    return next((n for n in whole if pieces // n * size <= UNIT), pieces)


def _spec(rows: int, views: Views, channels: int, finished: bool) -> dict:
    """What `pipeline.numbered` yields besides the number; to ask it would take seconds."""
    shape = [rows, views.augmentation.size, views.augmentation.size, channels]
    images = (tf.TensorSpec(shape, tf.float32 if finished else tf.uint8),) * views.count
    rest = {} if finished else {"draws": tf.TensorSpec([rows, views.draws], tf.float32)}
    return {"views" if finished else "crops": images, **rest, "index": tf.TensorSpec([rows], tf.int64)}


def _dealt(address: str, dataset: tf.data.Dataset) -> tf.data.Dataset:
    # NOTE: without a name every iterator has a job of its own: neither a run that continues nor another
    # of its workers can come into one that is half consumed.
    options = tf.data.Options()
    options.deterministic = True
    # NOTE: tf.data's tuner, there and here, would let more and more be made ahead of its use. Without it a
    # data worker runs on up to 16 processors.
    options.autotune.enabled = False
    deal = tf.data.experimental.service.ShardingPolicy.DYNAMIC
    share = tf.data.experimental.service.distribute(deal, address, compression=None)
    return dataset.with_options(options).apply(share).with_options(options)


def failure(error: tf.errors.OpError) -> UserError | None:
    """What the service ended with, where that is what an error from the training graph means."""
    found = re.search(r"(LostWorker|UserError): (data_service=.*)", str(error.message))
    return {"LostWorker": LostWorker, "UserError": UserError}[found[1]](found[2]) if found else None


def check(address: str) -> None:
    """Raises UserError where no dispatcher, or no data worker, answers."""
    reason = refusal(address)
    if reason:
        raise UserError(
            f"data_service={address}: no dispatcher answers there ({reason}). Start one: python -m "
            f"simsiam_tf.data_service --role=dispatcher --port={address.rpartition(':')[2]}"
        )
    arrivals = Arrivals(lambda: _dealt(address, tf.data.Dataset.range(1)))
    try:
        arrivals.get(START_SECONDS[1])
    except queue.Empty:
        raise UserError(
            f"data_service={address}: no data worker answers within {START_SECONDS[1]} s. Start some: "
            f"python -m simsiam_tf.data_service --role=worker --dispatcher={address}"
        ) from None
    except tf.errors.OpError as error:
        raise UserError(f"data_service={address}: is no dispatcher: {error.message}") from error
    finally:
        arrivals.leave()


def refusal(address: str) -> str:
    """Why no connection can be made, or nothing."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), START_SECONDS[0]):
            return ""
    except OSError as error:
        return str(error)


def check_source(address: str, source: Source) -> None:
    """Raises UserError for a source that cannot be sent to data workers."""
    if isinstance(source, ArraySource):
        if source.images.nbytes > ARRAY_BYTES:
            raise UserError(
                f"data_service={address}: {source.name} would be sent to every data worker, with "
                f"{source.images.nbytes >> 20} MiB of {ARRAY_BYTES >> 20} at most. Leave the flag out: "
                "images in memory are quick to read."
            )
        return
    decode = tf.function(source.decode, autograph=False).get_concrete_function(tf.TensorSpec([], tf.int64))
    if any(op.type in PYTHON for op in decode.graph.get_operations()):
        raise UserError(
            f"data_service={address}: {source.name} is read by Python in this process, which data workers "
            "cannot do. Pass data=folder:PATH with a folder that they see, or leave `data_service` out."
        )
