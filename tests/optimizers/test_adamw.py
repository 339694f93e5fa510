"""AdamW is PyTorch's, with rates by variable, and decays kernels alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf import optimizers
from simsiam_tf.optimizers import schedules
from simsiam_tf.optimizers.adamw import decays

PARITY = "needs torch: pip install 'simsiam-tf[parity]'"
STEPS, DECAY, FACTORS = 20, 0.3, (1.0, 0.25, 1.0, 0.5)


def variables(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (5, 3), "bias": (3,), "head_kernel": (3, 4), "class_token": (1, 1, 4)}
    return [keras.Variable(rng.normal(size=s).astype("float32"), name=n) for n, s in shapes.items()]


def gradients(ours, seed=1):
    rng = np.random.default_rng(seed)
    return [[rng.normal(size=v.shape).astype("float32") for v in ours] for _ in range(STEPS)]


def apply(optimizer, ours, steps):
    step = tf.function(lambda *g: optimizer.apply(list(g), ours))
    for grads in steps:
        step(*map(tf.constant, grads))


def test_twenty_steps_equal_torch_with_schedule_decay_and_rates_of_their_own():
    torch = pytest.importorskip("torch", reason=PARITY)
    ours = variables()
    start = [v.numpy() for v in ours]
    rate = schedules.cosine(0.05, STEPS, 4)
    adamw = optimizers.AdamW(rate, 0.8, 0.95, DECAY, {"head": 0.02}, layer_decay=0.5)
    adamw.build(ours, {"head": [ours[2]]}, FACTORS)
    steps = gradients(ours)
    apply(adamw, ours, steps)
    theirs = [torch.tensor(a, dtype=torch.float64) for a in start]
    groups = [{"params": [w], "weight_decay": DECAY if i in (0, 2) else 0} for i, w in enumerate(theirs)]
    peer = torch.optim.AdamW(groups, betas=(0.8, 0.95))
    for s, grads in enumerate(steps):
        for i, (group, w) in enumerate(zip(peer.param_groups, theirs, strict=True)):
            group["lr"] = 0.02 if i == 2 else float(rate(s)) * FACTORS[i]
            w.grad = torch.tensor(grads[i], dtype=torch.float64)
        peer.step()
    for a, b, c in zip(ours, theirs, start, strict=True):
        change = np.abs(b.numpy() - c).max()
        assert change > 0.01 and np.abs(a.numpy() - b.numpy()).max() < 2e-5 * change


def test_its_arithmetic_is_that_of_keras():
    ours, theirs = variables(), variables()
    steps = gradients(ours)
    apply(optimizers.AdamW(0.01, 0.9, 0.99, DECAY), ours, steps)
    peer = keras.optimizers.AdamW(0.01, DECAY, 0.9, 0.99, 1e-8)
    peer.exclude_from_weight_decay(var_names=["bias", "class_token"])
    apply(peer, theirs, steps)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-6, atol=2e-7)


def test_a_step_by_hand():
    # w 2, wd ½, lr 0.1: 2 − 0.1 · ½ · 2 = 1.9; m̂ / √v̂ = sign ∇ at the first step: 1.9 − 0.1
    w = keras.Variable([[2.0]], name="kernel")
    optimizers.AdamW(0.1, weight_decay=0.5).apply([tf.constant([[3.0]])], [w])
    assert w.numpy()[0, 0] == pytest.approx(1.8, abs=1e-6)


def test_the_decay_has_the_rate_of_its_variable():
    still, moved = (keras.Variable([[1.0]], name="kernel") for _ in range(2))
    adamw = optimizers.AdamW(0.5, weight_decay=0.5, part_learning_rates={"head": 0.0}, layer_decay=0.9)
    adamw.build([still, moved], {"head": [still]}, [1.0, 0.1])
    adamw.apply([tf.zeros([1, 1])] * 2, [still, moved])
    assert still.numpy()[0, 0] == 1.0 and moved.numpy()[0, 0] == pytest.approx(1 - 0.5 * 0.1 * 0.5)


def test_a_part_that_starts_later_begins_as_a_new_optimizer():
    late, fresh = variables()[0], variables()[0]
    steps = [[g[0]] for g in gradients(variables())]
    rates = {"prototypes": schedules.after(5, schedules.constant(0.1))}
    adamw = optimizers.AdamW(0.1, weight_decay=DECAY, part_learning_rates=rates)
    adamw.build([late], {"prototypes": [late]})
    apply(adamw, [late], steps[:5])
    np.testing.assert_array_equal(late.numpy(), fresh.numpy())
    apply(adamw, [late], steps[5:9])
    apply(optimizers.AdamW(0.1, weight_decay=DECAY), [fresh], steps[5:9])
    np.testing.assert_array_equal(late.numpy(), fresh.numpy())


@pytest.mark.parametrize(
    ("path", "decayed"),
    [
        ("block/kernel", True),
        ("patch_embedding/kernel", True),
        ("compositional_embedding/embeddings", True),
        ("token_mixer/kernel", True),
        ("mha/query/bias", False),
        ("layer_scale/gamma", False),
        ("register_tokens", False),
        ("position_embedding/embeddings", False),
        ("vit/pos_embed", False),
        ("attention/relative_position_bias_table", False),
    ],
)
def test_weight_decay_by_name(path, decayed):
    class Named:
        shape = (2, 3)

    Named.path = path
    assert decays(Named()) == decayed
    Named.shape = (3,)
    assert not decays(Named())


@pytest.mark.parametrize("name", ["vit", "dinov2"])
def test_only_kernels_of_transformers_decay(name):
    hub = pytest.importorskip("keras_hub")
    if name == "vit":
        network = hub.models.ViTBackbone((16, 16, 3), 4, 2, 2, 8, 16)
    else:
        network = hub.models.DINOV2Backbone(
            4,
            2,
            8,
            2,
            16,
            num_register_tokens=2,
            image_shape=(16, 16, 3),
            position_embedding_shape=(16, 16, 3),
        )
    decayed = {v.path for v in network.trainable_variables if decays(v)}
    assert decayed == {v.path for v in network.trainable_variables if v.path.endswith("/kernel")}
    assert 12 <= len(decayed) < len(network.trainable_variables) / 2


def test_it_is_saved_with_its_settings():
    adamw = optimizers.AdamW(
        schedules.cosine(0.5, 10), 0.8, 0.95, 0.1, {"head": 0.1}, layer_decay=0.75, epsilon=1e-6
    )
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(adamw))
    assert again.get_config() == adamw.get_config()
    assert (again.momentum, again.beta_2, again.decoupled_decay, again.epsilon) == (0.8, 0.95, 0.1, 1e-6)
    assert again.layer_decay == 0.75 and again.part_learning_rates["head"].base == 0.1


def test_layer_decay_needs_the_blocks():
    with pytest.raises(ValueError, match="layer_decay.*Compile a model"):
        optimizers.AdamW(0.1, layer_decay=0.5).build(variables())


def test_two_replicas_equal_one(two_replicas):
    def after(strategy, parts):
        with strategy.scope():
            w = keras.Variable([[1.0, -2.0, 3.0]], name="kernel")
            adamw = optimizers.AdamW(0.1, weight_decay=0.1, layer_decay=0.5)
            adamw.build([w], factors=[0.5])

        @tf.function
        def step():
            def of_replica():
                place = tf.distribute.get_replica_context().replica_id_in_sync_group
                adamw.apply([tf.gather(tf.constant(parts), place)], [w])

            strategy.run(of_replica)

        for _ in range(3):
            step()
        return w.numpy()

    parts = np.array([[[0.5, 1.0, -1.0]], [[0.25, -0.5, 2.0]]], np.float32)
    one = after(tf.distribute.get_strategy(), parts.sum(axis=0, keepdims=True))
    np.testing.assert_allclose(after(two_replicas, parts), one, rtol=1e-6)


def test_rates_by_layer_multiply_sgd_too():
    a, b = (keras.Variable([1.0]) for _ in range(2))
    sgd = optimizers.SGD(0.1, 0.0, layer_decay=0.5)
    sgd.build([a, b], factors=[0.25, 1.0])
    sgd.apply([tf.ones(1), tf.ones(1)], [a, b])
    assert (a.numpy()[0], b.numpy()[0]) == pytest.approx((1 - 0.025, 0.9))
