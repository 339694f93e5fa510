"""SGD is PyTorch's formula, and schedules are the paper's (Sec. 3)."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf import optimizers
from simsiam_tf.optimizers import schedules

PARITY = "needs torch: pip install 'simsiam-tf[parity]'"


def _variables(rng):
    values = [rng.normal(size=s).astype("float32") for s in [(3, 4), (7,), (2, 2, 3, 5)]]
    names = ["encoder_kernel", "encoder_bias", "predictor_kernel"]
    return [keras.Variable(v, name=n) for v, n in zip(values, names, strict=True)]


def test_fifty_steps_equal_torch_across_a_drop_of_the_rate():
    torch = pytest.importorskip("torch", reason=PARITY)
    rng = np.random.default_rng(0)
    ours = _variables(rng)
    theirs = [torch.tensor(v.numpy(), requires_grad=True) for v in ours]
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([24], [0.2, 0.02])
    mine = optimizers.SGD(rate, 0.9, 1e-2, {"predictor": 0.1})
    mine.build(ours, {"predictor": ours[2:]})
    groups = [{"params": theirs[:2]}, {"params": theirs[2:], "lr": 0.1}]
    peer = torch.optim.SGD(groups, lr=0.2, momentum=0.9, weight_decay=1e-2)
    for step in range(50):
        peer.param_groups[0]["lr"] = 0.2 if step <= 24 else 0.02
        gradients = [rng.normal(size=v.shape).astype("float32") for v in ours]
        mine.apply([tf.constant(g) for g in gradients], ours)
        for tensor, gradient in zip(theirs, gradients, strict=True):
            tensor.grad = torch.tensor(gradient)
        peer.step()
    for a, b in zip(ours, theirs, strict=True):
        b = b.detach().numpy()
        assert np.abs(a.numpy() - b).max() < 1e-5 * np.abs(b).max()


def test_five_steps_equal_numpy():
    rng = np.random.default_rng(1)
    variables = _variables(rng)
    w = [v.numpy().astype("float64") for v in variables]
    m = [np.zeros_like(a) for a in w]
    sgd = optimizers.SGD(schedules.cosine(0.5, 5), 0.8, 0.03, part_learning_rates={"second": 0.25})
    sgd.build(variables, {"second": variables[1:2]})
    for step in range(5):
        gradients = [rng.normal(size=a.shape) for a in w]
        sgd.apply([tf.constant(g, tf.float32) for g in gradients], variables)
        cosine = 0.25 * (1 + np.cos(np.pi * step / 5))
        for i, lr in enumerate([cosine, 0.25, cosine]):
            m[i] = 0.8 * m[i] + gradients[i] + 0.03 * w[i]
            w[i] = w[i] - lr * m[i]
    for v, a in zip(variables, w, strict=True):
        np.testing.assert_allclose(v.numpy(), a, rtol=2e-6, atol=2e-6)


def test_two_steps_by_hand():
    # w 1, ∇ 2, wd ½, m ½, lr .1: g 2.5, m 2.5, w .75; then g 2.375, m 3.625, w .3875
    w = keras.Variable([1.0])
    sgd = optimizers.SGD(0.1, momentum=0.5, weight_decay=0.5)
    for expected in (0.75, 0.3875):
        sgd.apply([tf.constant([2.0])], [w])
        assert w.numpy()[0] == pytest.approx(expected, abs=1e-7)


def test_weight_decay_is_coupled():
    """500 steps without a gradient: 0.0758; Keras' own decoupled decay would give 0.779."""
    w = keras.Variable(1.0)
    sgd = optimizers.SGD(0.05, 0.9, weight_decay=1e-2)
    sgd.build([w])

    @tf.function
    def run():
        for _ in tf.range(500):
            sgd.apply([tf.zeros([])], [w])

    run()
    assert w.numpy() == pytest.approx(0.0758, abs=5e-5)


def test_the_rate_of_a_part_reaches_only_its_variables():
    a, b = keras.Variable([1.0], name="like_a_predictor"), keras.Variable([1.0], name="kernel")
    sgd = optimizers.SGD(
        schedules.cosine(0.1, 2), 0.0, part_learning_rates={"predictor": schedules.constant(0.3)}
    )
    sgd.build([a, b], {"predictor": [b]})
    for expected in ((0.9, 0.7), (0.85, 0.4), (0.85, 0.1)):
        sgd.apply([tf.ones(1), tf.ones(1)], [a, b])
        assert (a.numpy()[0], b.numpy()[0]) == pytest.approx(expected, abs=1e-6)


def test_learning_rates_of_a_step_are_told_for_numbers_and_schedules():
    parts = {"predictor": schedules.cosine(0.5, 2)}
    told = optimizers.SGD(0.25, part_learning_rates=parts).learning_rates(1)
    assert told == {"lr": 0.25, "lr_predictor": pytest.approx(0.25)}
    assert optimizers.SGD(schedules.cosine(0.5, 2)).learning_rates(2) == {"lr": pytest.approx(0)}


def test_a_part_without_variables_is_an_error():
    variables = _variables(np.random.default_rng(0))
    sgd = optimizers.SGD(0.1, part_learning_rates={"predcitor": 0.1})
    with pytest.raises(ValueError, match="no trainable variables in 'predcitor'.*parts 'predictor'"):
        sgd.build(variables, {"predictor": variables[2:]})
    with pytest.raises(ValueError, match="'predcitor'.*parts none"):
        sgd.build(variables)
    stranger = keras.Variable([1.0])
    with pytest.raises(ValueError, match="'predcitor'"):
        sgd.build(variables, {"predcitor": [stranger]})


def test_config_roundtrip_steps_alike():
    def final(sgd):
        v = _variables(np.random.default_rng(2))
        sgd.build(v, {"second": v[1:2]} if sgd.part_learning_rates else None)
        for _ in range(4):
            sgd.apply([tf.ones(x.shape) for x in v], v)
        return np.concatenate([x.numpy().ravel() for x in v])

    sgd = optimizers.SGD(schedules.cosine(0.3, 4, 1), 0.7, 0.02, {"second": 0.05}, name="mine")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(sgd))
    assert (again.name, again.momentum, again.l2) == ("mine", 0.7, 0.02)
    assert again.get_config() == sgd.get_config()
    np.testing.assert_array_equal(final(again), final(sgd))
    assert float(optimizers.SGD.from_config(optimizers.SGD(0.125).get_config()).learning_rate) == 0.125


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.0),
        (1, 0.2),
        (9, 1.8),
        (10, 2.0),
        (35, 2 * 0.5 * (1 + 0.5**0.5)),
        (60, 1.0),
        (110, 0.0),
        (500, 0.0),
    ],
)
def test_cosine_by_hand(step, rate):
    """Base 2, warm-up 10, then half a cosine over 100."""
    assert schedules.cosine(2.0, 110, 10)(step).numpy() == pytest.approx(rate, abs=1e-6)


def test_cosine_without_warmup_starts_at_base():
    lr = schedules.cosine(0.4, 8)
    assert [round(float(lr(s)), 6) for s in (0, 4, 8)] == [0.4, 0.2, 0.0]
    assert float(lr(2)) == pytest.approx(0.2 * (1 + 0.5**0.5), abs=1e-6)


@pytest.mark.parametrize(("steps", "warmup"), [(10, 10), (10, 11), (10, -1), (0, 0)])
def test_no_room_for_the_warmup(steps, warmup):
    with pytest.raises(ValueError, match=f"{steps} steps.*{warmup} warm-up"):
        schedules.cosine(0.1, steps, warmup)


def test_linear_scaling():
    assert schedules.scaled(0.05, 512) == pytest.approx(0.1)
    assert schedules.constant(0.3)(10**6).numpy() == pytest.approx(0.3)
