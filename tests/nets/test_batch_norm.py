"""Batch normalisation equal to PyTorch's, by XLA, over replicas, and of views at once."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf import nets
from simsiam_tf.nets import batch_norm

PARITY = "needs torch: pip install 'simsiam-tf[parity]'"


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 3, 5)], ids=["[B, d]", "[B, H, W, C]"])
def test_batchnorm_equals_torchs_in_training_and_inference(shape):
    torch = pytest.importorskip("torch", reason=PARITY)
    rng = np.random.default_rng(0)
    ours = nets.BatchNorm()
    ours.build(shape)
    theirs = (torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d)(5, eps=1e-5, momentum=0.1)
    gamma, beta = rng.normal(1, 0.5, (2, 5)).astype("float32")
    ours.gamma.assign(gamma)
    ours.beta.assign(beta)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(gamma))
        theirs.bias.copy_(torch.tensor(beta))
    for step in range(4):
        training = step < 3
        # Small variances, so that another ε would show.
        x = rng.normal(0.3, 0.02, shape).astype("float32")
        y = ours(x, training=training).numpy()
        theirs.train(training)
        expected = theirs(torch.tensor(np.moveaxis(x, -1, 1).copy())).detach().numpy()
        np.testing.assert_allclose(y, np.moveaxis(expected, 1, -1), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(ours.moving_mean.numpy(), theirs.running_mean.numpy(), atol=1e-6)
        np.testing.assert_allclose(ours.moving_variance.numpy(), theirs.running_var.numpy(), rtol=2e-6)


def test_moving_variance_is_unbiased_by_hand():
    bn = nets.BatchNorm(momentum=0.9)
    bn(tf.constant([[0.0], [1.0], [2.0]]), training=True)  # mean 1, variance 2/3, unbiased 1
    assert bn.moving_mean.numpy()[0] == pytest.approx(0.1)
    assert bn.moving_variance.numpy()[0] == pytest.approx(0.9 + 0.1 * 1.0, abs=1e-6)
    bn(tf.constant([[5.0], [7.0]]), training=False)
    assert bn.moving_mean.numpy()[0] == pytest.approx(0.1)


@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (12, 3)])
def test_batchnorm_by_xla_equals_the_fused_kernel(monkeypatch, shape):
    x = tf.cast(np.random.default_rng(0).normal(2.0, 3.0, shape), tf.bfloat16)
    weights = tf.cast(np.random.default_rng(1).normal(size=shape), tf.bfloat16)
    calls = []
    by_xla = batch_norm._fused_by_xla
    monkeypatch.setattr(batch_norm, "_fused_by_xla", lambda *args: calls.append(1) or by_xla(*args))

    def step(on_gpu):
        monkeypatch.setattr(batch_norm, "on_gpu", lambda: on_gpu)
        bn = nets.BatchNorm(dtype="mixed_bfloat16")
        bn.build(shape)

        @tf.function(autograph=False)
        def run(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = bn(x, training=True)
                loss = tf.reduce_sum(tf.cast(y * weights, tf.float32))
            return y, tape.gradient(loss, [x, bn.gamma, bn.beta])

        y, gradients = run(x)
        return [np.array(tf.cast(v, tf.float32)) for v in (y, *gradients, *bn.non_trainable_variables)]

    plain, compiled = step(False), step(True)
    assert calls == [1]
    for a, b in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(a, b, rtol=0.02, atol=0.02)
    for a, b in zip(plain[-2:], compiled[-2:], strict=True):  # of float32 sums
        np.testing.assert_allclose(a, b, rtol=1e-4)


@pytest.mark.parametrize("shape", [(8, 5), (8, 3, 2, 5)], ids=["[B, d]", "[B, H, W, C]"])
def test_batchnorm_on_two_replicas_equals_one_with_the_whole_batch(shape, two_replicas):
    rng = np.random.default_rng(0)
    # The halves differ in mean: statistics of their own would be far off.
    x = rng.normal(0, 1, shape).astype("float32")
    x[4:] += 3
    weigh = rng.normal(size=shape).astype("float32")
    gamma = rng.normal(1, 0.5, 5)

    def forward(bn, x, weigh):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = bn(x, training=True)
            total = tf.reduce_sum(y * weigh)
        return y, *tape.gradient(total, [x, bn.gamma.value])

    one = nets.BatchNorm()
    one.build(shape)
    one.gamma.assign(gamma)
    y, dx, dgamma = forward(one, tf.constant(x), tf.constant(weigh))

    with two_replicas.scope():
        two = nets.BatchNorm()
        two.build(shape)
        two.gamma.assign(gamma)

    def half(array):
        return two_replicas.experimental_distribute_values_from_function(
            lambda c: tf.constant(array[4 * c.replica_id_in_sync_group :][:4])
        )

    results = tf.function(lambda a, b: two_replicas.run(lambda u, v: forward(two, u, v), args=(a, b)))(
        half(x), half(weigh)
    )
    y2, dx2, dgamma2 = ([t.numpy() for t in two_replicas.experimental_local_results(r)] for r in results)
    np.testing.assert_allclose(np.concatenate(y2), y, atol=2e-6)
    np.testing.assert_allclose(np.concatenate(dx2), dx, atol=2e-6)
    np.testing.assert_allclose(sum(dgamma2), dgamma, atol=1e-5)
    for name in ("moving_mean", "moving_variance"):
        for copy in two_replicas.experimental_local_results(getattr(two, name).value):
            np.testing.assert_allclose(copy.numpy(), getattr(one, name).numpy(), rtol=1e-6)


@pytest.mark.parametrize("mean", [0.0, 3.0, 1000.0], ids=["", "moved", "far"])
def test_views_on_two_replicas_equal_a_call_of_one_for_each(mean, two_replicas):
    rng = np.random.default_rng(0)
    views = rng.normal(mean, 1, (2, 8, 3, 2, 5)).astype("float32")
    views[:, 4:] += 1  # the replicas differ in mean, and so do the views
    views[1] -= 2
    weigh = rng.normal(size=views.shape).astype("float32")

    def forward(bn, xs, ws):
        xs = [tf.identity(x) for x in xs]
        with tf.GradientTape() as tape:
            tape.watch(xs)
            if len(xs) == 1:
                ys = [bn(xs[0], training=True)]
            else:
                with batch_norm.separate_views(len(xs)):
                    ys = tf.split(bn(tf.concat(xs, 0), training=True), len(xs))
            total = tf.add_n([tf.reduce_sum(y * w) for y, w in zip(ys, ws, strict=True)])
        return *ys, *tape.gradient(total, xs)

    one = nets.BatchNorm()
    one.build(views[0].shape)
    wanted = [forward(one, [x], [w]) for x, w in zip(views, weigh, strict=True)]
    with two_replicas.scope():
        two = nets.BatchNorm()
        two.build(views[0].shape)
    halves = two_replicas.experimental_distribute_values_from_function(
        lambda c: tuple(
            tf.constant(array[:, 4 * c.replica_id_in_sync_group :][:, :4]) for array in (views, weigh)
        )
    )
    results = tf.function(
        lambda pair: two_replicas.run(
            lambda p: forward(two, tf.unstack(p[0]), tf.unstack(p[1])), args=(pair,)
        ),
        autograph=False,
    )(halves)
    y1, y2, dx1, dx2 = (
        np.concatenate([t.numpy() for t in two_replicas.experimental_local_results(r)]) for r in results
    )
    error = 2e-6 if mean < 1000 else 5e-4  # of the means themselves in float32
    for (y, dx), y_two, dx_two in zip(wanted, (y1, y2), (dx1, dx2), strict=True):
        np.testing.assert_allclose(y_two, y, atol=error)
        np.testing.assert_allclose(dx_two, dx, atol=error)
    for name in ("moving_mean", "moving_variance"):
        ours = two_replicas.experimental_local_results(getattr(two, name).value)[0].numpy()
        np.testing.assert_allclose(ours, getattr(one, name).numpy(), rtol=1e-6 if mean < 1000 else 5e-4)


def networks_of_two(momentum):
    images = keras.Input((4,))
    x = keras.layers.BatchNormalization(momentum=momentum, name="high")(images)
    x = nets.BatchNorm(name="ours")(x)
    return keras.Model(
        images, keras.layers.BatchNormalization(momentum=0.99, name="frozen", trainable=False)(x)
    )


@pytest.mark.parametrize(
    ("steps", "lowered"),
    [(24, 1 - 10 / 24), (3, 0.5), (1000, 0.99), (5000, 0.998), (10_000, None), (10**6, None)],
)
def test_moving_averages_settle_within_a_short_run(steps, lowered):
    """After as many updates, at most e⁻¹⁰ of the initial values is left where 20 or more steps are made."""
    network = networks_of_two(0.999)
    found = nets.lower_momentum(network, steps)
    assert found == (None if lowered is None else (0.999, pytest.approx(lowered)))
    momenta = {layer.name: layer.momentum for layer in network.layers[1:]}
    assert momenta == {"high": pytest.approx(lowered or 0.999), "ours": 0.9, "frozen": 0.99}
    if steps >= 20:
        assert momenta["high"] ** steps < np.exp(-10) * 1.01
    assert nets.lower_momentum(network, steps) is None, "a second time there is nothing to do"


def test_a_run_changes_no_momentum_of_our_own_networks():
    for steps in (1, 24, 10**5):
        assert nets.lower_momentum(nets.resnet10(stem="small", width=0.125, channels=1), steps) is None


def test_averages_that_keep_their_initial_values_are_named():
    network = networks_of_two(0.999)
    assert nets.unsettled(network, 48) == (0.999, pytest.approx(0.999**48))
    assert nets.unsettled(network, 5000) is None
    nets.lower_momentum(network, 24)
    assert nets.unsettled(network, 48) is None
    assert nets.unsettled(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), 0) is None


def test_a_lower_momentum_changes_inference_and_no_trained_weight():
    rng, features, weights = np.random.default_rng(0), [], []
    for lowers in (False, True):
        keras.utils.set_random_seed(0)
        images = keras.Input((6,))
        x = keras.layers.BatchNormalization(momentum=0.999)(keras.layers.Dense(5)(images))
        network = keras.Model(images, keras.layers.ReLU()(x))
        if lowers:
            nets.lower_momentum(network, 24)
        rng = np.random.default_rng(0)
        for _ in range(24):
            batch = tf.constant(rng.normal(50, 1e-3, [16, 6]).astype("float32"))
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(network(batch, training=True) ** 2)
            for v, g in zip(
                network.trainable_weights, tape.gradient(loss, network.trainable_weights), strict=True
            ):
                v.assign(v - 0.1 * g)
        weights.append([v.numpy() for v in network.trainable_weights])
        batch = rng.normal(50, 1e-3, [64, 6]).astype("float32")
        unit = network(batch, training=False).numpy() + 1e-9
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        features.append(unit.std(0).mean() * 5**0.5)
    for before, after in zip(*weights, strict=True):
        np.testing.assert_array_equal(before, after)
    assert features[0] < 0.03 < 0.3 < features[1]
