"""The batches of a run, and its steps, compiled into a graph that runs many of them in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from simsiam_tf.data import pipeline
from simsiam_tf.data.service import client
from simsiam_tf.distributed import step_compilation, strategies
from simsiam_tf.loop.task import RunComponents


def batches(components: RunComponents, config: Any, first_step: int) -> Iterator:
    """Iterates over this process's share of each batch, from that of `first_step` on.

    Reads config.batch_size and config.seed.
    """

    def make(rows: tuple[int, int], replicas: int) -> tf.data.Dataset:
        if components.make_batches is not None:
            return components.make_batches(rows, replicas).dataset(first_step, components.total_steps)
        step_batches = pipeline.StepBatches(
            components.source, components.views, config.batch_size, config.seed, rows, replicas,
            augment_on_host=not components.on_device, targets=components.targets,
        )  # fmt: skip
        if components.data_service:
            return client.dataset(components.data_service, step_batches, first_step, components.total_steps)
        return step_batches.dataset(first_step, components.total_steps)

    return strategies.distributed_iterator(components.strategy, config.batch_size, make)


def compiled_steps(components: RunComponents, config: Any) -> Callable[..., tuple[tf.Tensor, ...]]:
    """Makes the `tf.function` that trains: (iterator of `batches`, number of steps n, a scalar) → (rows, z).

    rows: float32 [n, 3], for each step its loss and its metric, the means of those of the replicas (of those
    that have a metric), and the seconds waited for data. z: embeddings of the last global batch, float32
    [B, d]. At each step only the model's own messages are sent. Reads config.batch_size and
    config.jit_compile.
    """
    strategy, model = components.strategy, components.model
    local = strategy.experimental_local_results
    of_replica = (config.batch_size // strategy.num_replicas_in_sync, model.d)  # shape of z
    update, on_tpu = model.step, isinstance(strategy, tf.distribute.TPUStrategy)
    if step_compilation.compilation_on(strategy, config.jit_compile).whole and not on_tpu:
        update = tf.function(update, jit_compile=True, autograph=False)  # TPUs compile all that they run

    def replica_step(batch):
        return update(pipeline.augment_batch(components.views, batch))

    @tf.autograph.experimental.do_not_convert
    def of_all_workers(rows, z):
        """Rows and z of this worker's replicas → the means over all workers, and the global batch."""

        def exchange(own):
            context = tf.distribute.get_replica_context()
            known = ~tf.math.is_nan(metric)
            sent = tf.stack([loss, tf.where(known, metric, 0.0), tf.cast(known, tf.float32)])
            own = tf.identity(own)  # NOTE: on the replica's device, which the loop's output does not name
            return context.all_reduce("MEAN", sent), context.all_gather(own, axis=0)

        loss, metric, waited = tf.unstack(rows, axis=1)
        each = strategy.experimental_distribute_values_from_function(
            lambda context: z[context.replica_id_in_sync_group % len(z)]
        )
        means, gathered = (local(values)[0] for values in strategy.run(exchange, args=(each,)))
        return tf.stack([means[0], means[1] / means[2], waited], axis=1), gathered

    # Only the `for` in `steps` needs AutoGraph, which writes a file for every function that it converts.
    @tf.autograph.experimental.do_not_convert
    def next_step(loss, iterator):
        """Runs a step once the previous one has ended, whose loss is `loss`.

        Returns its row and the z of each replica of this process.
        """
        with tf.control_dependencies([loss]):  # the previous step has ended
            before = tf.timestamp()
        with tf.control_dependencies([before]):
            batch = next(iterator)
        with tf.control_dependencies([tf.nest.flatten(batch, expand_composites=True)[0]]):
            waited = tf.timestamp() - before
        with tf.control_dependencies([waited]):  # or a single thread could read the clock after the step
            batch = tf.nest.map_structure(tf.identity, batch, expand_composites=True)
        outputs = strategy.run(replica_step, args=(batch,))
        metrics = tf.stack(local(outputs[model.metric_name]))
        metric = tf.reduce_mean(tf.boolean_mask(metrics, ~tf.math.is_nan(metrics)))  # NaN where none is known
        loss = tf.reduce_mean(local(outputs["loss"]))
        z = tuple(tf.ensure_shape(own, of_replica) for own in local(outputs["z"]))
        return tf.stack([loss, metric, tf.cast(waited, tf.float32)]), z

    @tf.function(reduce_retracing=True)
    def steps(iterator, count):
        rows = tf.TensorArray(tf.float32, count)
        own = strategy.num_replicas_in_sync // components.workers.count
        row, z = tf.zeros([3]), (tf.zeros(of_replica),) * own
        for i in tf.range(count):
            row, z = next_step(row[0], iterator)
            rows = rows.write(i, row)
        if components.workers.count > 1:
            return of_all_workers(rows.stack(), z)
        return rows.stack(), tf.concat(z, axis=0)

    return steps
