"""The inner loop: batches of a run, and steps compiled to run one after the other in the graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from simsiam_tf.data import pipeline
from simsiam_tf.data.service import client
from simsiam_tf.distributed import strategies
from simsiam_tf.loop.run_components import RunComponents


def batches(parts: RunComponents, config: Any, first_step: int) -> Iterator:
    """This process's share of every batch, from a step on. config: batch_size and seed are read."""

    def make(rows: tuple[int, int], replicas: int) -> tf.data.Dataset:
        step_batches = pipeline.StepBatches(
            parts.source, parts.views, config.batch_size, config.seed, rows, replicas,
            augment_on_host=not parts.on_device,
        )  # fmt: skip
        if parts.data_service:
            return client.dataset(parts.data_service, step_batches, first_step, parts.total_steps)
        return step_batches.dataset(first_step, parts.total_steps)

    return strategies.distributed_iterator(parts.strategy, config.batch_size, make)


def compiled_steps(parts: RunComponents, config: Any) -> Steps:
    """The loop over steps of a run's model. config: batch_size and jit_compile are read."""
    strategy, model = parts.strategy, parts.model
    on_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
    xla = config.jit_compile == "true" and not on_tpu
    update = tf.function(model.step, jit_compile=True, autograph=False) if xla else model.step

    def step(batch):
        return update(pipeline.augment_batch(parts.views, batch))

    def whole(z):
        if parts.workers.count > 1:
            return tf.ensure_shape(strategy.gather(z, axis=0), [config.batch_size, model.d])
        return tf.concat(strategy.experimental_local_results(z), axis=0)

    # Only the loop is control flow over tensors, and AutoGraph writes a file of what it converts.
    @tf.autograph.experimental.do_not_convert
    def after(loss, iterator):
        """loss, z, figure and seconds waited for data of the step after the one with this loss."""
        with tf.control_dependencies([loss]):  # the step before has ended
            before = tf.timestamp()
        with tf.control_dependencies([before]):
            batch = next(iterator)
        with tf.control_dependencies([tf.nest.flatten(batch, expand_composites=True)[0]]):
            waited = tf.timestamp() - before
        with tf.control_dependencies([waited]):  # a single thread could read the clock after the step
            batch = tf.nest.map_structure(tf.identity, batch, expand_composites=True)
        outputs = strategy.run(step, args=(batch,))
        loss = strategy.reduce(tf.distribute.ReduceOp.MEAN, outputs["loss"], axis=None)
        z = whole(outputs["z"])
        return loss, z, model.metric(z), tf.cast(waited, tf.float32)

    @tf.function(reduce_retracing=True)
    def steps(iterator, count):
        losses = tf.TensorArray(tf.float32, count)
        figures = tf.TensorArray(tf.float32, count)
        waits = tf.TensorArray(tf.float32, count)
        z = tf.zeros([config.batch_size, model.d])
        loss = tf.zeros([])
        for i in tf.range(count):
            loss, z, figure, waited = after(loss, iterator)
            losses = losses.write(i, loss)
            figures = figures.write(i, figure)
            waits = waits.write(i, waited)
        return losses.stack(), figures.stack(), waits.stack(), z

    return Steps(steps)


class Steps:
    """The compiled loop over steps of one model."""

    def __init__(self, function: tf.types.experimental.PolymorphicFunction) -> None:
        self._function = function

    def trace(self, iterator: Iterator) -> None:
        """Compiles for batches of this kind, and runs nothing."""
        self._function.get_concrete_function(iterator, tf.constant(1))

    def __call__(self, iterator: Iterator, count: int) -> tuple[tf.Tensor, ...]:
        """Runs so many steps: losses [n], figures [n], seconds waited for data [n], the last z [B, d]."""
        try:
            return self._function(iterator, tf.constant(count))
        except tf.errors.OpError as error:
            ended = client.failure(error)
            if ended is None:
                raise
            raise ended from error
