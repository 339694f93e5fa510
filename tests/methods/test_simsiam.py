"""The method: stop-gradient, every switch of Sec. 4, BN per view, fit, replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import twins

from simsiam_tf import nets, optimizers
from simsiam_tf.methods import Alternation, SimSiam
from simsiam_tf.nets import heads

BATCH, SIZE = 16, 8


def _model(seed=0, lr=0.05, **switches) -> SimSiam:
    keras.utils.set_random_seed(seed)
    backbone = nets.resnet10("small", width=0.125, channels=1)
    model = SimSiam(backbone, d=32, projector_layers=2, predictor_hidden=32, **switches)
    model.compile(optimizers.SGD(lr, 0.9, 1e-4))
    return model


def _views(count=2, batch=BATCH, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(batch, SIZE, SIZE, 1))
    noise = rng.normal(0, 0.3, (count, batch, SIZE, SIZE, 1))
    return tuple(tf.constant(images + n, tf.float32) for n in noise)


def _objective(model, views) -> float:
    return float(model.objective({"views": views})["loss"])


def _cosine(p, z) -> float:
    p, z = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (np.asarray(p), np.asarray(z)))
    return float(-(p * z).sum(1).mean())


@pytest.mark.parametrize("predictor", ["trained", "none"])
def test_no_gradient_flows_through_the_target(predictor):
    """Asymmetric, so that the second view is seen through the target only."""
    largest = {}
    for stop in (True, False):
        model = _model(stop_gradient=stop, predictor=predictor, symmetry="asymmetric")
        x1, x2 = _views()
        with tf.GradientTape() as tape:
            tape.watch([x1, x2])
            loss = model.objective({"views": (x1, x2)})["loss"]
        gradients = tape.gradient(loss, [x1, x2], unconnected_gradients="zero")
        largest[stop] = [float(tf.reduce_max(tf.abs(g))) for g in gradients]
    assert largest[True][0] > 1e-5 and largest[True][1] == 0
    assert largest[False][0] > 1e-5 and largest[False][1] > 1e-5


def test_the_gradient_is_that_of_constant_targets():
    """Eq. 4: both views learn as predictions, neither as a target."""
    model, views = _model(), _views()
    t = [model.f(x).numpy() for x in views]
    with tf.GradientTape(persistent=True) as tape:
        loss = model.objective({"views": views})["loss"]
        p = [tf.math.l2_normalize(model.h(model.f(x)), -1) for x in views]
        t = [u / np.linalg.norm(u, axis=1, keepdims=True) for u in t]
        rows = [tf.reduce_sum(p[i] * t[1 - i], -1) for i in (0, 1)]
        expected = -tf.reduce_mean(rows)
    assert float(loss) == pytest.approx(float(expected), abs=1e-6)
    for v in model.trainable_variables:
        a, b = (tape.gradient(y, v).numpy() for y in (loss, expected))
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1e-2, np.abs(b).max()), err_msg=v.path)


def test_loss_value_from_z_and_p():
    views = _views()
    model = _model()
    z = [model.f(x) for x in views]
    p = [model.h(u) for u in z]
    expected = 0.5 * _cosine(p[0], z[1]) + 0.5 * _cosine(p[1], z[0])
    assert abs(expected) > 0.01
    assert _objective(model, views) == pytest.approx(expected, abs=1e-6)
    assert _objective(_model(symmetry="asymmetric"), views) == pytest.approx(_cosine(p[0], z[1]), abs=1e-6)
    assert _objective(_model(predictor="none"), views) == pytest.approx(_cosine(z[0], z[1]), abs=1e-6)
    target = np.exp(z[1]) / np.exp(z[1]).sum(1, keepdims=True)
    log_p = np.asarray(p[0]) - np.log(np.exp(p[0]).sum(1, keepdims=True))
    entropy = _model(symmetry="asymmetric", similarity="cross_entropy")
    assert _objective(entropy, views) == pytest.approx(-(target * log_p).sum(1).mean(), rel=1e-5)


def test_symmetric_is_the_mean_of_both_directions():
    x1, x2 = _views()
    model = _model(symmetry="asymmetric")
    there, back = _objective(model, (x1, x2)), _objective(model, (x2, x1))
    assert abs(there - back) > 1e-4
    assert _objective(_model(), (x1, x2)) == pytest.approx((there + back) / 2, abs=1e-6)


def test_asymmetric_2x_is_the_mean_of_two_pairs():
    views = _views(4)
    model = _model(symmetry="asymmetric")
    pairs = _objective(model, views[:2]), _objective(model, views[2:])
    assert abs(pairs[0] - pairs[1]) > 1e-4
    assert _objective(_model(symmetry="asymmetric_2x"), views) == pytest.approx(sum(pairs) / 2, abs=1e-6)


@pytest.mark.parametrize(
    ("symmetry", "wanted", "given"), [("asymmetric_2x", 4, 2), ("symmetric", 2, 4), ("asymmetric", 2, 1)]
)
def test_a_wrong_number_of_views_is_an_error(symmetry, wanted, given):
    model = _model(symmetry=symmetry)
    assert model.view_count == wanted
    with pytest.raises(ValueError, match=f"{wanted} views.*{given} views"):
        model.step(_views(given))


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"stop_gradient": False},
        {"predictor": "fixed"},
        {"predictor": "fixed", "bn": "none"},
        {"predictor": "none"},
        {"bn": "none"},
        {"bn": "hidden"},
        {"bn": "all"},
        {"output_affine": False},
        {"similarity": "cross_entropy"},
        {"symmetry": "asymmetric"},
        {"symmetry": "asymmetric_2x"},
    ],
    ids=lambda s: " ".join(f"{k}={v}" for k, v in s.items()) or "default",
)
def test_every_switch_takes_a_step(switches):
    model = _model(**switches)
    for v in model.trainable_variables:
        if v.name in ("gamma", "beta"):  # at their first values some have no gradient
            v.assign(np.full(v.shape, 0.5))
    before = {v.path: v.numpy() for v in model.weights}
    outputs = model.step(_views(model.view_count))
    assert np.isfinite(outputs["loss"]) and outputs["z"].shape == (BATCH, 32)
    assert float(outputs["std"]) > 0.1
    same = {v.path for v in model.weights if np.array_equal(v.numpy(), before[v.path])}
    learned = {v.path for v in model.learned_variables()}
    fixed = switches.get("predictor") == "fixed"
    assert len(before) == len(model.weights)  # paths are unique
    # What is learned moves, and so do BN's statistics; a fixed predictor stays to the bit.
    assert same == ({v.path for v in model.predictor.trainable_variables} if fixed else set())
    assert len(learned) == len(model.trainable_variables) - (len(same) if fixed else 0)
    assert (model.predictor is None) == (switches.get("predictor") == "none")


def test_unknown_rows_are_errors():
    for switch in ("predictor", "bn", "similarity", "symmetry"):
        with pytest.raises(KeyError, match="typo"):
            _model(**{switch: "typo"})
    assert set(heads.PREDICTOR) == {"trained", "fixed", "none"}


def test_each_view_is_a_bn_batch_of_its_own():
    model = _model()
    x1, x2 = _views()
    z = model.objective({"views": (x1, x2)})["z"].numpy()
    other = model.objective({"views": (x1, 5 * x2 + 3)})["z"].numpy()
    np.testing.assert_array_equal(z, other)
    half = model.f(x1[: BATCH // 2]).numpy()
    assert np.abs(half - z[: BATCH // 2]).max() > 0.01  # whereas its own batch matters


def test_calling_the_model_gives_backbone_features():
    model = _model()
    x, _ = _views()
    np.testing.assert_array_equal(model(x), model.backbone(x, training=False))


def test_fit_reports_the_loss_of_its_batches():
    views = _views(batch=3 * BATCH)
    model = _model(lr=0.0)
    expected = np.mean([_objective(model, [v[i : i + BATCH] for v in views]) for i in range(0, 48, BATCH)])
    dataset = tf.data.Dataset.from_tensor_slices(views).batch(BATCH)
    history = model.fit(dataset, epochs=1, verbose=0).history
    assert history["loss"] == pytest.approx([expected], abs=1e-5) and abs(expected) > 1e-3
    assert 0.3 < history["std"][0] < 1.1


def test_fit_learns_a_toy_and_accepts_dictionaries():
    x1, x2 = _views(batch=2 * BATCH)
    model = _model(lr=0.1)
    batches = {"views": (x1, x2), "index": tf.range(2 * BATCH)}
    dataset = tf.data.Dataset.from_tensor_slices(batches).batch(BATCH)
    history = model.fit(dataset, epochs=12, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] - 0.3
    assert min(history["std"]) > 0.2
    assert int(model.optimizer.iterations) == 24


def test_two_replicas_equal_one_after_three_steps(two_replicas):
    batches = [_views(seed=step) for step in range(3)]
    found = twins.after_steps(_model, batches, two_replicas, abs=1e-5)
    twins.assert_moved_alike(*found, two_replicas, atol=1e-5, rtol=1e-5)


def test_alternation_with_one_step_is_simsiam():
    models = [_model(), _alternating(1)]
    for step in range(3):
        losses = [float(m.step(_views(seed=step))["loss"]) for m in models]
        assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    learned = (m.learned_variables() for m in models)
    for a, b in zip(*learned, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6, err_msg=a.path)


def _alternating(k) -> Alternation:
    keras.utils.set_random_seed(0)
    backbone = nets.resnet10("small", width=0.125, channels=1)
    model = Alternation(backbone, k, d=32, projector_layers=2, predictor_hidden=32)
    model.compile(optimizers.SGD(0.05, 0.9, 1e-4))
    return model


@pytest.mark.slow
def test_alternation_takes_targets_computed_beforehand_for_k_steps():
    """Sec. 5: η of the next k steps by θ as it is, then k steps on f against them."""
    k, steps = 3, 7
    ours, slow = _alternating(k), _model()
    cached = []
    for step in range(steps):
        if step % k == 0:
            cached = [[slow.f(x).numpy() for x in _views(seed=s)] for s in range(step, step + k)]
        slow.targets = lambda batch, z, t=cached[step % k]: [tf.constant(u) for u in t]
        a, b = (float(m.step(_views(seed=step))["loss"]) for m in (ours, slow))
        assert a == pytest.approx(b, abs=1e-5), step
    for a, b in zip(ours.learned_variables(), slow.learned_variables(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5, err_msg=a.path)
