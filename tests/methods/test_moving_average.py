"""Sec. 5's moving average: one vector an image, whoever sees it, against a dictionary."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import twins

from simsiam_tf import nets, optimizers
from simsiam_tf.methods import MovingAverage
from simsiam_tf.methods.moving_average import ImageMemory

IMAGES, BATCH, SIZE, D = 21, 6, 8, 5


def made(seed=0):
    keras.utils.set_random_seed(seed)
    x = images = keras.Input((SIZE, SIZE, 1))
    for width in (6, 8):
        x = keras.layers.ReLU()(nets.BatchNorm()(nets.Conv(width, 3, 2)(x)))
    backbone = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    model = MovingAverage(backbone, IMAGES, m=0.7, d=D, projector_layers=2)
    model.compile(optimizers.SGD(0.1, 0.9))
    return model


def batch(step):
    rng = np.random.default_rng(step)
    index = rng.choice(IMAGES, BATCH, replace=False)
    views = rng.normal(size=(2, BATCH, SIZE, SIZE, 1)) + rng.normal(size=(BATCH, SIZE, SIZE, 1))
    return {"views": tuple(tf.constant(v, tf.float32) for v in views), "index": tf.constant(index)}


def unit(a):
    return a / np.linalg.norm(a, axis=-1, keepdims=True)


def test_targets_are_those_of_a_dictionary():
    model, eta = made(), {}
    for step in range(8):
        data = batch(step)
        z = [model.f(x).numpy() for x in data["views"]]
        new = [[], []]
        for row, i in enumerate(data["index"].numpy()):
            for view in (0, 1):
                new[view].append(0.7 * eta[i] + 0.3 * z[view][row] if i in eta else z[view][row])
            eta[i] = (new[0][-1] + new[1][-1]) / 2
        expected = -np.mean([(unit(z[i]) * unit(np.array(new[1 - i]))).sum(1).mean() for i in (0, 1)])
        assert float(model.step(data)["loss"]) == pytest.approx(expected, abs=1e-5)
    assert len(eta) > BATCH
    for i in range(IMAGES):
        kept = model.averages.read_rows(tf.constant([i]))[0]
        np.testing.assert_allclose(kept, eta.get(i, np.zeros(D)), rtol=1e-4, atol=1e-5)


def test_no_gradient_flows_through_the_average():
    model, data = made(), batch(0)
    model.step(data)
    model.pairs = ((0, 1),)
    x1, x2 = data["views"]
    with tf.GradientTape() as tape:
        tape.watch([x1, x2])
        loss = model.objective({**data, "views": (x1, x2)})["loss"]
    g1, g2 = tape.gradient(loss, [x1, x2], unconnected_gradients="zero")
    assert tf.reduce_max(tf.abs(g1)) > 1e-6 and tf.reduce_max(tf.abs(g2)) == 0


def test_of_an_image_that_is_there_twice_the_last_is_kept():
    table = ImageMemory(10, 2)
    table.write_rows(tf.constant([3, 4, 3], tf.int64), tf.constant([[1.0, 1], [2, 2], [3, 3]]))
    found = table.read_rows(tf.constant([3, 4, 5, 3], tf.int64))
    np.testing.assert_array_equal(found, [[3, 3], [2, 2], [0, 0], [3, 3]])


@pytest.mark.slow
def test_two_replicas_share_the_table_and_equal_one(two_replicas):
    batches = [batch(step) for step in range(4)]
    start, one, two = twins.after_steps(made, batches, two_replicas, rel=1e-4)
    twins.assert_moved_alike(start, one, two, two_replicas, atol=1e-4, rtol=1e-3)
    slices = two.averages.variables
    assert len(slices) == 8 and len({v.device for v in slices}) == 2
    seen = len({int(i) for data in batches for i in data["index"]})
    assert sum(int(tf.reduce_sum(tf.cast(tf.reduce_any(v[:-1] != 0, 1), tf.int32))) for v in slices) == seen
    for a, b in zip(one.averages.variables, slices, strict=True):  # the last row is for nobody
        np.testing.assert_allclose(a.numpy()[:-1], b.numpy()[:-1], rtol=1e-3, atol=1e-4)
