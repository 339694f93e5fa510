"""Dropout and drop path are functions of seed, step, replica, layer and call, and a run resumes with them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.random_networks import DropPath, build_network
from keras.src.random.seed_generator import global_seed_generator

from simsiam_tf import optimizers
from simsiam_tf.methods import BYOL, SimSiam
from simsiam_tf.nets import layer_seeds
from simsiam_tf.optimizers import schedules

ROWS, WIDTH = 4, 64


def masks(network, seed=0, step=0, calls=2, graph=False):
    """The network's outputs for ones, for each of its calls in a step."""

    def outputs(step):
        with layer_seeds.step_seeds(network, seed, step):
            return [network(tf.ones([ROWS, WIDTH]), training=True) for _ in range(calls)]

    run = tf.function(outputs) if graph else outputs
    return [y.numpy() for y in run(tf.constant(step, tf.int64))]


def fold(seed, number):
    """[a draw of the seed, the number]: TensorFlow's fold-in, written out."""
    draw = tf.random.stateless_uniform([], seed, minval=None, maxval=None, dtype=tf.int32)
    return tf.stack([draw, tf.constant(number, tf.int32)])


def seed_by_hand(seed, step, layer, call, replica=0):
    return fold(fold(fold(tf.constant([seed, step], tf.int32), replica), layer), call)


def dropout_by_hand(rate, seed):
    return tf.where(tf.random.stateless_uniform([ROWS, WIDTH], seed) >= rate, 1 / (1 - rate), 0.0).numpy()


@pytest.mark.parametrize("graph", [False, True])
def test_masks_are_those_of_a_reference_by_hand(graph):
    drops = keras.layers.Dropout(0.3), DropPath(0.4), keras.layers.Dropout(0.2)
    network = keras.Sequential([keras.Input((WIDTH,)), *drops])
    for step in (0, 7):
        for call, y in enumerate(masks(network, 5, step, graph=graph)):
            kept = dropout_by_hand(0.3, seed_by_hand(5, step, 0, call))
            kept *= dropout_by_hand(0.2, seed_by_hand(5, step, 1, call))
            seed = seed_by_hand(5, step, layer_seeds.NO_GENERATOR, call)
            rows = np.floor(0.6 + tf.random.stateless_uniform([ROWS, 1], seed).numpy()) / 0.6
            np.testing.assert_allclose(y, kept * rows, rtol=1e-6)


def test_layers_calls_steps_and_seeds_differ():
    x = images = keras.Input((WIDTH,))
    both = [keras.layers.Dropout(0.5)(x) for _ in range(2)]
    network = keras.Model(images, keras.layers.Concatenate()(both))
    ones = [np.split(y, 2, axis=1) for s in (0, 1) for n in (0, 1) for y in masks(network, s, n)]
    drawn = [y for pair in ones for y in pair]
    assert len({y.tobytes() for y in drawn}) == len(drawn) == 16
    again = [y for s in (0, 1) for n in (0, 1) for y in masks(network, s, n)]
    np.testing.assert_array_equal(np.concatenate(drawn, axis=1), np.concatenate(again, axis=1))


def test_replicas_draw_their_own(two_replicas):
    with two_replicas.scope():
        network = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dropout(0.5)])

    @tf.function
    def step():
        def of_replica():
            with layer_seeds.step_seeds(network, 3, 2):
                return network(tf.ones([ROWS, WIDTH]), training=True)

        return two_replicas.run(of_replica)

    for replica, y in enumerate(two_replicas.experimental_local_results(step())):
        expected = dropout_by_hand(0.5, seed_by_hand(3, 2, 0, 0, replica))
        np.testing.assert_array_equal(y.numpy(), expected)


def test_outside_a_step_layers_draw_as_before():
    network = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dropout(0.5, seed=4)])
    fresh = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dropout(0.5, seed=4)])
    masks(network)
    for _ in range(2):
        one, two = (n(tf.ones([ROWS, WIDTH]), training=True).numpy() for n in (network, fresh))
        np.testing.assert_array_equal(one, two)
    before = global_seed_generator()
    masks(network)
    assert global_seed_generator() is before


def data(steps=4):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 8 * steps, 16, 16, 3)).astype("float32")
    return tf.data.Dataset.from_tensor_slices({"views": (x[0], x[1])}).batch(8)


def hub_vit():
    vit = pytest.importorskip("keras_hub").models.ViTBackbone(
        (16, 16, 3), 8, 2, 2, 8, 16, dropout_rate=0.2, attention_dropout=0.2
    )
    x = DropPath(0.3)(vit.output)
    return keras.Model(vit.input, keras.layers.GlobalAveragePooling1D()(x), name="backbone")


def small_network():
    return build_network(16, 3)


def model_of(backbone, seed=1, make=SimSiam, eagerly=True):
    """A compiled model. Eager, since tracing a step takes longer than the few steps of these tests."""
    keras.utils.set_random_seed(0)
    model = make(backbone(), d=8, predictor_hidden=32, projector_hidden=8)
    rates = schedules.cosine(0.01, 4), 0.9, 0.99, 0.05
    model.compile(optimizers.AdamW(*rates, layer_decay=0.5), seed=seed, run_eagerly=eagerly)
    return model


def weights(model):
    return [v.numpy() for v in (*model.weights, *model.optimizer.variables)]


def same(one, two):
    return len(one) == len(two) and all((a == b).all() for a, b in zip(one, two, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("make", "backbone"), [(SimSiam, hub_vit), (BYOL, small_network)])
def test_fit_goes_on_to_the_bit(make, backbone, tmp_path):
    whole = model_of(backbone, make=make)
    whole.fit(data(), verbose=0)
    first = model_of(backbone, make=make)
    first.fit(data().take(2), verbose=0)
    path = tf.train.Checkpoint(model=first, optimizer=first.optimizer).write(str(tmp_path / "state"))
    second = model_of(backbone, make=make)
    tf.train.Checkpoint(model=second, optimizer=second.optimizer).read(path).assert_consumed()
    keras.random.uniform([5])  # the global generator is elsewhere than in the whole run
    second.fit(data().skip(2), verbose=0)
    assert same(weights(second), weights(whole))
    assert not same(weights(first), weights(whole))


@pytest.mark.slow
def test_the_seed_is_that_of_compile_and_saved(tmp_path):
    ends = []
    for seed in (1, 1, 2):
        model = model_of(small_network, seed, eagerly=False)
        model.fit(data(2), verbose=0)
        ends.append(weights(model))
    assert same(ends[0], ends[1]) and not same(ends[1], ends[2])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.draw_seed == 2 and again.optimizer.layer_decay == 0.5
    for m in (model, again):
        m.fit(data(2), verbose=0)
    assert same(weights(model), weights(again))


def test_in_evaluation_nothing_is_dropped():
    model = model_of(small_network)
    one, two = (model.evaluate(data(1), verbose=0) for _ in range(2))
    assert one == two
