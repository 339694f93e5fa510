"""The batches of a run, made by the data workers of a tf.data service as one process would make them.

The dispatcher hands out the numbers of pieces (`StepBatches`), each to one data worker; `OrderedElements`
sorts the pieces that the data workers send.
"""

from __future__ import annotations

import queue
import re
import socket
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from simsiam_tf.data import pipeline
from simsiam_tf.data.mapping import with_options
from simsiam_tf.data.pipeline import StepBatches
from simsiam_tf.data.service.reorder import OrderedElements, ThreadedIterator
from simsiam_tf.data.sources.base import ArraySource, Source
from simsiam_tf.runtime.errors import LostWorker, UserError

START_SECONDS = 5, 60  # longest waits for the dispatcher, and for a first data worker
MAX_WAITING = 256  # most pieces that wait here for an earlier one
ARRAY_BYTES = 2**29  # of the largest array that is sent: every process holds it several times in memory
ENDLESS = 2**62  # pieces, more than any training takes
PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}  # ops that call Python


def dataset(address: str, batches: StepBatches, first_step: int, last_step: int) -> tf.data.Dataset:
    """`batches.dataset(first_step, last_step)`, made by the data workers of the dispatcher at `address`.

    Every piece comes exactly once and in order, even where data workers come, go or are lost meanwhile.
    Pieces are the same to the bit where data workers have this process's versions and type of processor.
    `service_error` reads the errors that iterating raises.
    """

    def job(first: int, token: int) -> tf.data.Dataset:
        tag = tf.constant(token, tf.int64)
        # NOTE: the job has no end, since a lost piece is noticed by later ones that arrive.
        pieces = batches.numbered_pieces(tf.data.Dataset.range(first, ENDLESS), tf.data.AUTOTUNE)
        return _distributed(address, pieces.map(lambda n, batch: (tag, n, batch)))

    def make_here(n: int) -> dict:
        pieces = batches.numbered_pieces(tf.data.Dataset.range(n, n + 1), pipeline.PARALLEL)
        return next(iter(pieces))[1]

    def pieces() -> Iterator[dict]:
        """The pieces of one iterator. When TensorFlow closes it, the job ends."""
        name, answers = f"data_service={address}", lambda: not connection_error(address)
        ordered = OrderedElements(name, job, make_here, answers, MAX_WAITING)
        try:
            for n in range(first_step * batches.pieces_per_step, last_step * batches.pieces_per_step):
                yield ordered.get(n)
        finally:
            ordered.close()

    spec: Any = batches.numbered_pieces(tf.data.Dataset.range(1), None).element_spec
    return batches.joined(tf.data.Dataset.from_generator(pieces, output_signature=spec[1]))


def _distributed(address: str, dataset: tf.data.Dataset) -> tf.data.Dataset:
    # NOTE: no job name, so that every iterator has a job of its own: neither a run that continues nor
    # another of its workers can join a job that is half consumed.
    policy = tf.data.experimental.service.ShardingPolicy.DYNAMIC
    distribute = tf.data.experimental.service.distribute(policy, address, compression=None)
    # NOTE: tf.data's tuner, in data workers and here, would make more and more elements ahead of their use.
    # Without it a data worker runs on up to 16 processors.
    return with_options(with_options(dataset).apply(distribute))


def service_error(error: tf.errors.OpError) -> UserError | None:
    """The UserError of the service inside an error of the training graph; None where there is none."""
    match = re.search(r"(LostWorker|UserError): (data_service=.*)", str(error.message))
    return {"LostWorker": LostWorker, "UserError": UserError}[match[1]](match[2]) if match else None


def check_service(address: str) -> None:
    """Raises UserError where no dispatcher, or no data worker, answers."""
    reason = connection_error(address)
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
        raise UserError(f"data_service={address}: is not a dispatcher: {error.message}") from error
    finally:
        arrivals.close()


def connection_error(address: str) -> str:
    """The reason why no connection to HOST:PORT can be made; empty where one can."""
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
                f"data_service={address}: {source.name} has {source.images.nbytes >> 20} MiB, and at most "
                f"{ARRAY_BYTES >> 20} MiB can be sent to the data workers. Leave `data_service` out: images "
                "in memory are quick to read."
            )
        return
    decode = tf.function(source.decode, autograph=False).get_concrete_function(tf.TensorSpec([], tf.int64))
    graph = decode.graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    if any(node.op in PYTHON_OPS for node in nodes):
        raise UserError(
            f"data_service={address}: {source.name} is read by Python in this process, which data workers "
            "cannot do. Pass data=folder:PATH with a folder that they see, whose images all are JPEG and PNG "
            "of 8 bits, upright, not transparent and in sRGB; or leave `data_service` out."
        )
