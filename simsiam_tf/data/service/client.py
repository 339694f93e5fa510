"""The batches of a run, made by the data workers of a tf.data service as one process would make them.

The dispatcher hands the numbers of elements out, each to one data worker; `OrderedElements` sorts what the
data workers send.
"""

from __future__ import annotations

import dataclasses
import queue
import re
import secrets
import socket
from collections.abc import Iterator

import tensorflow as tf

from simsiam_tf.data import pipeline
from simsiam_tf.data.pipeline import StepBatches
from simsiam_tf.data.service.reorder import OrderedElements, ThreadedIterator
from simsiam_tf.data.sources.base import ArraySource, Source
from simsiam_tf.runtime.errors import LostWorker, UserError

START_SECONDS = 5, 60  # the longest wait for the dispatcher, and for a first data worker
MESSAGE_BYTES = 2**24  # bytes of a message; one piece may be larger
MAX_WAITING = 256  # messages that wait here for an earlier one
ARRAY_BYTES = 2**29  # the most of an array: every process of the service holds it several times in memory
ENDLESS = 2**62
PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}


def dataset(address: str, batches: StepBatches, first_step: int, last_step: int) -> tf.data.Dataset:
    """`batches.dataset(first_step, last_step)`, made by the data workers of the dispatcher at `address`.

    Every element comes exactly once and in order, even where data workers come, go or are lost meanwhile.
    It is the same to the bit where data workers compute as this process does: the same versions on the same
    type of processor. `failure` reads the errors that iterating raises.
    """
    messages = messages_per_element(batches)
    sent = dataclasses.replace(batches, elements_per_step=batches.elements_per_step * messages)

    def job(first: int, token: int) -> tf.data.Dataset:
        tag = tf.constant(token, tf.int64)
        # NOTE: it has no end, since a lost element is noticed by the later ones that arrive.
        numbers = tf.data.Dataset.range(first, ENDLESS)
        elements = sent.numbered_elements(numbers, tf.data.AUTOTUNE)
        return _distributed(address, elements.map(lambda n, batch: (tag, n, batch)))

    def made_here(n: int) -> dict:
        numbers = tf.data.Dataset.range(n, n + 1)
        return next(iter(sent.numbered_elements(numbers, pipeline.PARALLEL)))[1]

    opened: dict[int, OrderedElements] = {}

    def requests() -> Iterator[tuple[int, int]]:
        """Yields (key, number) for the elements of one iterator. When TensorFlow closes it, the job ends."""
        key = secrets.randbits(62)
        name = f"data_service={address}"
        opened[key] = OrderedElements(name, job, made_here, lambda: not refusal(address), MAX_WAITING)
        try:
            for n in range(first_step * sent.elements_per_step, last_step * sent.elements_per_step):
                yield key, n
        finally:
            opened.pop(key).close()

    spec = sent.element_spec
    flat = tf.nest.flatten(spec)

    @tf.autograph.experimental.do_not_convert
    def element(key: tf.Tensor, n: tf.Tensor) -> dict:
        get = lambda key, n: tf.nest.flatten(opened[int(key)].get(int(n)))  # noqa: E731
        tensors = tf.py_function(get, [key, n], [s.dtype for s in flat])
        shaped = [tf.ensure_shape(t, s.shape) for t, s in zip(tensors, flat, strict=True)]
        return tf.nest.pack_sequence_as(spec, shaped)

    scalar = tf.TensorSpec([], tf.int64)
    requested = tf.data.Dataset.from_generator(requests, output_signature=(scalar, scalar))
    return pipeline.prefetched(pipeline.concatenated(requested.map(element), messages))


def messages_per_element(batches: StepBatches) -> int:
    """Messages for one element. Each holds whole pieces, to have the same bits as if made here."""
    pixels = batches.views.count * batches.views.augmentation.size**2 * batches.source.channels
    size = batches.rows_per_piece * pixels * (4 if batches.augment_on_host else 1)
    pieces = batches.rows_per_element // batches.rows_per_piece
    divisors = [n for n in range(1, pieces + 1) if pieces % n == 0]
    return next((n for n in divisors if pieces // n * size <= MESSAGE_BYTES), pieces)


def _distributed(address: str, dataset: tf.data.Dataset) -> tf.data.Dataset:
    # NOTE: without a name every iterator has a job of its own. Neither a run that continues nor another
    # worker of it can join a job that is half consumed.
    options = tf.data.Options()
    options.deterministic = True
    # NOTE: tf.data's tuner, there and here, would make more and more elements ahead of their use. Without it
    # a data worker runs on up to 16 processors.
    options.autotune.enabled = False
    policy = tf.data.experimental.service.ShardingPolicy.DYNAMIC
    distribute = tf.data.experimental.service.distribute(policy, address, compression=None)
    return dataset.with_options(options).apply(distribute).with_options(options)


def failure(error: tf.errors.OpError) -> UserError | None:
    """The UserError of the service that an error of the training graph contains, if any."""
    match = re.search(r"(LostWorker|UserError): (data_service=.*)", str(error.message))
    return {"LostWorker": LostWorker, "UserError": UserError}[match[1]](match[2]) if match else None


def check_service(address: str) -> None:
    """Raises UserError where no dispatcher, or no data worker, answers."""
    reason = refusal(address)
    if reason:
        raise UserError(
            f"data_service={address}: no dispatcher answers there ({reason}). Start one: python -m "
            f"simsiam_tf.data_service --role=dispatcher --port={address.rpartition(':')[2]}"
        )
    arrivals = ThreadedIterator(lambda: _distributed(address, tf.data.Dataset.range(1)))
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
        arrivals.close()


def refusal(address: str) -> str:
    """The reason why no connection can be made; empty where one can."""
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
                f"data_service={address}: {source.name} would be sent to every data worker, but has "
                f"{source.images.nbytes >> 20} MiB of {ARRAY_BYTES >> 20} allowed. Leave the flag out: "
                "images in memory are quick to read."
            )
        return
    decode = tf.function(source.decode, autograph=False).get_concrete_function(tf.TensorSpec([], tf.int64))
    if any(op.type in PYTHON_OPS for op in decode.graph.get_operations()):
        raise UserError(
            f"data_service={address}: {source.name} is read by Python in this process, which data workers "
            "cannot do. Pass data=folder:PATH with a folder that they see, or leave `data_service` out."
        )
