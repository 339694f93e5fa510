"""The batches of a run, and its steps compiled to run one after the other in the graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from simsiam_tf.data import pipeline
from simsiam_tf.data.service import client
from simsiam_tf.distributed import strategies
from simsiam_tf.loop.task import RunComponents


def batches(components: RunComponents, config: Any, first_step: int) -> Iterator:
    """Iterates over this process's share of every batch. Reads config.batch_size and config.seed."""

    def make(rows: tuple[int, int], replicas: int) -> tf.data.Dataset:
        step_batches = pipeline.StepBatches(
            components.source, components.views, config.batch_size, config.seed, rows, replicas,
            augment_on_host=not components.on_device, targets=components.targets,
        )  # fmt: skip
        if components.data_service:
            return client.dataset(components.data_service, step_batches, first_step, components.total_steps)
        return step_batches.dataset(first_step, components.total_steps)

    return strategies.distributed_iterator(components.strategy, config.batch_size, make)


def compiled_steps(components: RunComponents, config: Any) -> Steps:
    """Makes the loop over steps of a run's model. Reads config.batch_size and config.jit_compile."""
    strategy, model = components.strategy, components.model
    on_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
    xla = config.jit_compile == "true" and not on_tpu
    update = tf.function(model.step, jit_compile=True, autograph=False) if xla else model.step

    def replica_step(batch):
        return update(pipeline.augment_batch(components.views, batch))

    def global_batch(z):
        if components.workers.count > 1:
            return tf.ensure_shape(strategy.gather(z, axis=0), [config.batch_size, model.d])
        return tf.concat(strategy.experimental_local_results(z), axis=0)

    # Only the loop needs AutoGraph, which writes a file for every function that it converts.
    @tf.autograph.experimental.do_not_convert
    def next_step(loss, iterator):
        """Runs the step after the one with this loss: its loss, z, metric, and seconds waited for data."""
        with tf.control_dependencies([loss]):  # the previous step has ended
            before = tf.timestamp()
        with tf.control_dependencies([before]):
            batch = next(iterator)
        with tf.control_dependencies([tf.nest.flatten(batch, expand_composites=True)[0]]):
            waited = tf.timestamp() - before
        with tf.control_dependencies([waited]):  # a single thread could read the clock after the step
            batch = tf.nest.map_structure(tf.identity, batch, expand_composites=True)
        outputs = strategy.run(replica_step, args=(batch,))
        loss = strategy.reduce(tf.distribute.ReduceOp.MEAN, outputs["loss"], axis=None)
        z = global_batch(outputs["z"])
        return loss, z, model.metric(z), tf.cast(waited, tf.float32)

    @tf.function(reduce_retracing=True)
    def steps(iterator, count):
        losses = tf.TensorArray(tf.float32, count)
        metrics = tf.TensorArray(tf.float32, count)
        waits = tf.TensorArray(tf.float32, count)
        z = tf.zeros([config.batch_size, model.d])
        loss = tf.zeros([])
        for i in tf.range(count):
            loss, z, metric, waited = next_step(loss, iterator)
            losses = losses.write(i, loss)
            metrics = metrics.write(i, metric)
            waits = waits.write(i, waited)
        return losses.stack(), metrics.stack(), waits.stack(), z

    return Steps(steps)


class Steps:
    """The compiled loop over steps of one model."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def trace(self, iterator: Iterator) -> None:
        """Compiles the loop for the iterator's batches, without running a step."""
        self._function.get_concrete_function(iterator, tf.constant(1))

    def __call__(self, iterator: Iterator, count: int) -> tuple[tf.Tensor, ...]:
        """Runs `count` steps: losses [n], metrics [n], seconds waited for data [n], the last z [B, d]."""
        try:
            return self._function(iterator, tf.constant(count))
        except tf.errors.OpError as error:
            service_error = client.service_error(error)
            if service_error is None:
                raise
            raise service_error from error
