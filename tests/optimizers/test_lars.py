"""LARS is what the linear evaluation asks for, step by step against PyTorch."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf import optimizers
from simsiam_tf.optimizers import schedules

PARITY = "needs torch: pip install 'simsiam-tf[parity]'"


def torch_lars(
    torch, weights, gradients, buffers, lr, momentum, decay, trust, exclude_1d=False, decayed_slope=False
):
    """One step, in place: the layer-wise rate on the decayed gradient, then SGD with momentum."""
    whole_decay = decay
    for i, (w, g) in enumerate(zip(weights, gradients, strict=True)):
        plain = exclude_1d and w.ndim == 1
        decay = 0.0 if plain else whole_decay
        slope, size = torch.linalg.vector_norm(g), torch.linalg.vector_norm(w)
        d = g + decay * w
        if slope > 0 and size > 0 and not plain:
            whole = torch.linalg.vector_norm(d) if decayed_slope else slope + decay * size
            d = d * (trust * size / (whole + 1e-8))
        buffers[i] = d if buffers[i] is None else momentum * buffers[i] + d
        w -= lr * buffers[i]


@pytest.mark.parametrize(
    ("decay", "options"),
    [
        (0.0, {}),
        (0.02, {}),
        (0.02, {"exclude_1d": True}),
        (0.5, {"exclude_1d": True, "decayed_slope": True}),
    ],
)
def test_twenty_steps_equal_torch(decay, options):
    torch = pytest.importorskip("torch", reason=PARITY)
    rng = np.random.default_rng(0)
    start = [rng.normal(size=(5, 3)), np.zeros(3), rng.normal(size=(7,)), rng.normal(size=(2, 2, 3, 4))]
    ours = [keras.Variable(a.astype("float32")) for a in start]
    theirs, buffers = [torch.tensor(a, dtype=torch.float64) for a in start], [None] * 4
    lars = optimizers.LARS(schedules.cosine(40.0, 20), weight_decay=decay, **options)
    lars.build(ours)
    step = tf.function(lambda *g: lars.apply(list(g), ours))
    for i in range(20):
        gradients = [rng.normal(size=a.shape) for a in start]
        gradients[2] *= i != 5  # a step without a slope
        step(*(tf.constant(g, tf.float32) for g in gradients))
        lr = 20.0 * (1 + math.cos(math.pi * i / 20))
        torch_lars(torch, theirs, map(torch.tensor, gradients), buffers, lr, 0.9, decay, 0.001, **options)
    for a, b, c in zip(ours, theirs, start, strict=True):
        change = np.abs(b.numpy() - c).max()
        assert change > 1e-3 and np.abs(a.numpy() - b.numpy()).max() < 3e-5 * change


def test_a_step_by_hand():
    # w (3, 4), ∇ (0, 2), wd ½: g (1.5, 4); ratio .01 · 5 / (2 + 2.5) = 1/90; w − 9 · g/90
    w, zero = keras.Variable([3.0, 4.0]), keras.Variable([0.0])
    lars = optimizers.LARS(9.0, momentum=0.9, weight_decay=0.5, trust=0.01)
    lars.apply([tf.constant([0.0, 2.0]), tf.constant([2.0])], [w, zero])
    np.testing.assert_allclose(w.numpy(), [3 - 0.15, 4 - 0.4], rtol=1e-6)
    np.testing.assert_allclose(zero.numpy(), [-18.0], rtol=1e-6)  # a bias at 0 is not scaled


def test_it_is_saved_with_its_settings():
    lars = optimizers.LARS(
        schedules.cosine(0.5, 10),
        trust=0.02,
        epsilon=1e-6,
        exclude_1d=True,
        decayed_slope=True,
        part_learning_rates={"predictor": 0.1},
    )
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(lars))
    assert (again.trust, again.epsilon, again.momentum, again.l2) == (0.02, 1e-6, 0.9, 0.0)
    assert again.exclude_1d and again.decayed_slope
    assert again.part_learning_rates["predictor"].base == 0.1


def test_two_replicas_equal_one(two_replicas):
    def after(strategy, gradients):
        with strategy.scope():
            w = keras.Variable([1.0, -2.0, 3.0])
            lars = optimizers.LARS(1.0, weight_decay=0.1)
            lars.build([w])

        @tf.function
        def step():
            def of_replica():
                place = tf.distribute.get_replica_context().replica_id_in_sync_group
                lars.apply([tf.gather(tf.constant(gradients), place)], [w])

            strategy.run(of_replica)

        for _ in range(3):
            step()
        return w.numpy()

    parts = np.array([[0.5, 1.0, -1.0], [0.25, -0.5, 2.0]], np.float32)
    one = after(tf.distribute.get_strategy(), parts.sum(axis=0, keepdims=True))
    np.testing.assert_allclose(after(two_replicas, parts), one, rtol=1e-6)
