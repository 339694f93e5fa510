"""The same model on one replica and on two, step by step."""

import numpy as np
import pytest
import tensorflow as tf


def after_steps(make, batches, strategy, **tolerance):
    """(initial weights, model on one replica, model on two), after a step on every batch.

    make: seed → a compiled model. batches: global batches; each replica gets half of the rows. tolerance: of
    the loss, which is compared at every step.
    """
    one = make(0)
    start = one.get_weights()
    with strategy.scope():
        two = make(1)
        two.set_weights(start)
        two.optimizer.build(two.learned_variables())
    alone = tf.function(one.step)
    together = tf.function(lambda batch: strategy.run(two.step, args=(batch,)))
    for batch in batches:
        half = len(tf.nest.flatten(batch)[0]) // 2
        split = strategy.experimental_distribute_values_from_function(
            lambda c, batch=batch, half=half: tf.nest.map_structure(
                lambda v: v[half * c.replica_id_in_sync_group :][:half], batch
            )
        )
        loss = strategy.reduce("MEAN", together(split)["loss"], axis=None)
        assert float(loss) == pytest.approx(float(alone(batch)["loss"]), **tolerance)
    return start, one, two


def assert_moved_alike(start, one, two, strategy, still=lambda weight: False, **tolerance):
    """Every weight but those of `still` has changed, and has the same value on both replicas and on one."""
    for before, a, b in zip(start, one.weights, two.weights, strict=True):
        assert (np.abs(a.numpy() - before).max() > 0) != still(a)
        for copy in strategy.experimental_local_results(b.value):
            np.testing.assert_allclose(copy.numpy(), a.numpy(), err_msg=a.path, **tolerance)
