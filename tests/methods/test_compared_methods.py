"""The compared methods: losses against slow sums, who gets a gradient, what follows a step, replicas."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import twins
from helpers.compared_methods import (
    BATCH,
    METHODS,
    SIZE,
    D,
    compiled_model,
    gradients,
    unchanged_by_a_step,
    unit,
    views,
)

from simsiam_tf import nets
from simsiam_tf.methods import BYOL


def of_simclr(model, z, p):
    keys, queries = unit(np.concatenate(z)), unit(np.concatenate(p))
    each = []
    for i in range(2 * BATCH):
        e = [np.exp(queries[i] @ k / 0.2) for k in keys]
        each.append(-np.log(e[(i + BATCH) % (2 * BATCH)] / (sum(e) - e[i])))
    return 2 * np.mean(each)  # their code adds the means of both directions


def of_moco(model, z, p):
    keys = [unit(model.encoder(x)) for x in views()]
    each = []
    for q, k in ((z[0], keys[1]), (z[1], keys[0])):
        for a, b in zip(unit(q), k, strict=True):
            e = np.exp([a @ b / 0.3, *[a @ c / 0.3 for c in model.queue.numpy()]])
            each.append(-np.log(e[0] / e.sum()))
    return np.mean(each)


def of_byol(model, z, p):
    t = [unit(model.target(x)) for x in views()]
    squares = [((unit(p[i]) - t[1 - i]) ** 2).sum(-1).mean() for i in (0, 1)]
    return np.sum(squares)  # of both directions


def of_swav(model, z, p):
    prototypes = unit(model.prototypes.kernel.numpy().T).T
    codes, predicted = [], []
    for a, b in zip(z, p, strict=True):
        q = np.exp(unit(a) @ prototypes / 0.5)
        for _ in range(3):
            q = q / q.sum(axis=0) / 5
            q = q / q.sum(axis=1, keepdims=True) / BATCH
        codes.append(q * BATCH)
        e = np.exp(unit(b) @ prototypes / 0.1)
        predicted.append(e / e.sum(axis=1, keepdims=True))
    return np.mean([-(codes[1 - i] * np.log(predicted[i])).sum(1).mean() for i in (0, 1)])


def of_vicreg(model, z, p):
    z = [np.asarray(u, np.float64) for u in z]
    spread = sum(max(0, 1 - np.sqrt(c.var(ddof=1) + 1e-4)) for u in z for c in u.T) / D
    correlated = sum(
        m[i, j] ** 2 for m in map(np.cov, (u.T for u in z)) for i in range(D) for j in range(D) if i != j
    )
    return 3 * ((z[0] - z[1]) ** 2).mean() + 4 * spread / 2 + 5 * correlated / D


def of_barlow(model, z, p):
    z = [np.asarray(u, np.float64) for u in z]
    a, b = ((u - u.mean(0)) / np.sqrt(u.var(0) + 1e-5) for u in z)
    c = [[a[:, i] @ b[:, j] / BATCH for j in range(D)] for i in range(D)]
    return 0.5 * sum((1 - c[i][j]) ** 2 if i == j else 0.3 * c[i][j] ** 2 for i in range(D) for j in range(D))


def of_distill(model, z, p):
    each = []
    for a, x in zip(p, views(), strict=True):
        t = model.teacher(x).numpy().astype(np.float64)
        t = (t - t.mean(0)) / np.sqrt(t.var(0) + 1e-5)
        each += [((u - v) ** 2).sum() for u, v in zip(unit(a), unit(t), strict=True)]
    return np.mean(each)


SLOW = {
    "simclr": of_simclr, "moco": of_moco, "byol": of_byol, "swav": of_swav, "vicreg": of_vicreg,
    "barlow": of_barlow, "distill": of_distill,
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_is_the_slow_sum(name):
    model = compiled_model(name)
    outputs = model.objective({"views": views()})
    z = [model.f(x) for x in views()]
    expected = SLOW[name.split()[0]](model, z, [model.h(u) for u in z])
    assert float(outputs["loss"]) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(outputs["z"], z[0])


@pytest.mark.parametrize("name", METHODS)
def test_a_step_moves_what_learns_and_nothing_else(name):
    model = compiled_model(name)
    before = {id(v): v.numpy() for v in model.weights}
    optimised = {id(v) for v in model.learned_variables()}
    copies = {
        id(v) for layer in model.layers if layer.name in ("target", "key_encoder") for v in layer.weights
    }
    assert not optimised & copies and len(optimised) == len(model.trainable_variables)
    for _ in range(2):  # γ of 1 and β of 0 are no place to see a gradient of the biases before them
        outputs = model.step(views())
    assert np.isfinite(outputs["loss"]) and outputs["z"].shape == (BATCH, D)
    still = {id(v) for v in model.weights if id(v) in copies and unchanged_by_a_step(name)(v)}
    moved = {id(v) for v in model.weights if np.abs(v.numpy() - before[id(v)]).max() > 0}
    assert moved == before.keys() - still


@pytest.mark.parametrize(
    ("name", "constant"),
    [("simclr", False), ("simclr predictor", False), ("simclr predictor stop", True), ("swav", True)],
)
def test_targets_are_constants_where_the_gradient_stops(name, constant, monkeypatch):
    """The loss with targets from a copy of the model has the same gradient only if none flows there."""
    model, other = compiled_model(name), compiled_model(name)
    whole = gradients(model, lambda: model.objective({"views": views()})["loss"])
    # Whatever passes `stop` is now the other model's, in whose variables nobody is interested.
    z = [other.f(x) for x in views()]
    given = iter([other.codes(u) for u in z] if name == "swav" else z)
    model.stop = lambda _: tf.constant(next(given).numpy())
    fixed = gradients(model, lambda: model.objective({"views": views()})["loss"])
    alike = [np.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(whole, fixed, strict=True)]
    assert all(alike) if constant else not all(alike)


@pytest.mark.parametrize(("name", "encoder"), [("moco", "encoder"), ("byol", "target")])
def test_the_momentum_encoder_gets_no_gradient_and_follows(name, encoder):
    model = compiled_model(name)
    copy = getattr(model, encoder)
    with tf.GradientTape() as tape:
        tape.watch([v.value for v in copy.weights])
        loss = model.objective({"views": views()})["loss"]
    assert all(g is None for g in tape.gradient(loss, [v.value for v in copy.weights]))
    pairs = [
        (mine, v)
        for net, original in ((copy.backbone, model.backbone), (copy.projector, model.projector))
        for mine, v in zip(net.weights, original.weights, strict=True)
        if v.trainable
    ]
    assert len(pairs) > 6
    before = [mine.numpy() for mine, _ in pairs]
    model.step(views())
    for (mine, v), old in zip(pairs, before, strict=True):
        np.testing.assert_allclose(mine.numpy(), 0.9 * old + 0.1 * v.numpy(), rtol=1e-5, atol=1e-7)
    alone = compiled_model(name)  # BN's statistics are of what the copy has seen
    for _ in range(2):  # above, and in the step
        alone.objective({"views": views()})
    own = [v.numpy() for v in getattr(alone, encoder).weights if "moving" in v.name]
    found = [v.numpy() for v in copy.weights if "moving" in v.name]
    for a, b in zip(found, own, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "last"),
    [("simclr", "gamma"), ("byol", "kernel"), ("swav", "bias"), ("vicreg", "kernel"), ("barlow", "kernel")],
)
def test_the_last_layer_of_the_projector_is_that_of_their_code(name, last):
    """SimCLR's BN has no shift; the fc of BYOL, VICReg and Barlow Twins has no bias."""
    model = compiled_model(name)
    assert model.projector.trainable_variables[-1].name == last
    if name == "byol":
        assert model.predictor.trainable_variables[-1].name == last


def test_byols_momentum_ends_at_one():
    model = compiled_model("byol")
    keras.utils.set_random_seed(0)
    model = BYOL(model.backbone, d=D, projector_hidden=12, predictor_hidden=12, target_momentum=0.5, steps=3)
    assert [float(model.m(s)) for s in (0, 3)] == [0.5, 1.0]
    assert float(model.m(1)) == pytest.approx(1 - 0.5 * (np.cos(np.pi / 3) + 1) / 2)


def test_the_queue_has_the_newest_keys_first_and_forgets_the_oldest():
    model = compiled_model("moco")
    first = model.queue.numpy()
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-5)
    keys = [unit(model.encoder(x)) for x in views()]
    model.step(views())
    np.testing.assert_allclose(model.queue.numpy()[: 2 * BATCH], np.concatenate(keys), atol=1e-5)
    np.testing.assert_array_equal(model.queue.numpy()[2 * BATCH :], first[: 40 - 2 * BATCH])
    for seed in range(1, 4):
        model.step(views(seed))
    assert model.queue.shape == (40, D)
    assert not any((model.queue.numpy() == row).all(1).any() for row in first[:3])


def test_keys_have_the_bn_statistics_of_their_group():
    model, whole = compiled_model("moco groups"), compiled_model("moco")
    x = views()[0]
    before = [v.numpy() for v in model.encoder.weights]
    keys = model.encoder(x).numpy()
    alone = [whole.encoder(x[i : i + 2]).numpy() for i in range(0, BATCH, 2)]
    np.testing.assert_allclose(keys, np.concatenate(alone), atol=1e-5)
    assert np.abs(keys - whole.encoder(x).numpy()).max() > 1e-2
    for old, v in zip(before, model.encoder.weights, strict=True):
        np.testing.assert_array_equal(v.numpy(), old)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["moco groups", "simclr predictor", "moco", "byol", "swav", "barlow", "vicreg", "distill"],
)
def test_two_replicas_equal_one_after_three_steps(name, two_replicas):
    make = functools.partial(compiled_model, name)
    found = twins.after_steps(make, [views(step) for step in range(3)], two_replicas, rel=1e-4)
    twins.assert_moved_alike(*found, two_replicas, unchanged_by_a_step(name), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", [nets.BatchNorm, keras.layers.BatchNormalization])
def test_a_momentum_encoder_computes_with_batch_statistics(kind):
    """Which its model's `trainable` does not change; a frozen backbone's copy has its moving ones."""
    images = keras.Input((SIZE, SIZE, 1))
    x = keras.layers.GlobalAveragePooling2D()(kind(name="bn")(nets.Conv(4, 3)(images)))
    for frozen in (False, True):
        backbone = keras.Model(images, x)
        backbone.trainable = not frozen
        model = BYOL(backbone, d=D, projector_hidden=12, predictor_hidden=12)
        model.trainable = False
        model.trainable = True
        assert not model.target.trainable and not model.target.trainable_variables
        model.backbone.trainable = not frozen
        learned = {v.path for v in model.learned_variables()}
        assert not any("momentum" in path for path in learned) and learned
        online, target = (n.get_layer(name) for n, name in (
            (model.backbone, "bn"), (model.target.backbone, "momentum_bn"),
        ))  # fmt: skip
        before = target.moving_mean.numpy()
        model.compile("sgd", run_eagerly=True)
        model.step(views())
        for layer in (online, target):
            assert np.array_equal(layer.moving_mean.numpy(), before) == frozen
