"""SwAV's prototypes: their length, when they learn, and the variants of Sec. 6.2."""

import numpy as np
import tensorflow as tf
from helpers.compared_methods import METHODS, D, compiled_model, gradients, unit, views

from simsiam_tf import optimizers
from simsiam_tf.config.method_options import SwAVOptions
from simsiam_tf.methods import SwAV
from simsiam_tf.methods.losses import sinkhorn_knopp
from simsiam_tf.optimizers import schedules


def test_prototypes_have_length_one_after_a_step():
    model = compiled_model("swav")
    before = model.prototypes.kernel.numpy()
    model.step(views())
    after = model.prototypes.kernel.numpy()
    np.testing.assert_allclose(np.linalg.norm(after, axis=0), 1, rtol=1e-6)
    assert np.abs(after - before).max() > 1e-4


def test_a_norm_in_the_loss_has_a_gradient_and_leaves_lengths_alone():
    model = compiled_model("swav in loss")
    kernel = model.prototypes.kernel
    kernel.assign(3 * kernel)
    with tf.GradientTape() as tape:
        loss = model.objective({"views": views()})["loss"]
    gradient = tape.gradient(loss, kernel.value).numpy()
    # The loss does not depend on lengths, so that no gradient points along a prototype.
    assert np.abs(gradient).max() > 1e-3
    np.testing.assert_allclose((gradient * kernel.numpy()).sum(axis=0), 0, atol=1e-6)
    model.step(views())
    assert (np.linalg.norm(kernel.numpy(), axis=0) > 2.9).all()


def test_frozen_prototypes_do_not_move_and_then_start_afresh():
    """Neither the gradients nor the weight decay of frozen steps are in the momentum afterwards."""
    model = compiled_model("swav")
    rate = schedules.after(3, schedules.constant(0.1))
    model.compile(optimizers.SGD(0.0, 0.9, 0.01, {"prototypes": rate}))
    model.optimizer.build(model.learned_variables())
    before = model.prototypes.kernel.numpy()
    for step in range(3):
        model.step(views(step))
    np.testing.assert_allclose(model.prototypes.kernel.numpy(), before, atol=1e-6)
    index = next(i for i, v in enumerate(model.learned_variables()) if v is model.prototypes.kernel)
    np.testing.assert_array_equal(model.optimizer.momentums[index], 0)
    with tf.GradientTape() as tape:
        loss = model.objective({"views": views(3)})["loss"]
    expected = before - 0.1 * (tape.gradient(loss, model.prototypes.kernel.value).numpy() + 0.01 * before)
    model.step(views(3))
    np.testing.assert_allclose(model.prototypes.kernel.numpy(), unit(expected.T).T, rtol=1e-4, atol=1e-6)


def test_swav_without_stop_gradient_gives_the_codes_a_gradient():
    found = []
    for stop in (True, False):
        METHODS["stop"] = lambda b, stop=stop: SwAV(
            b, d=D, projector_hidden=12, prototypes=5, stop_gradient=stop
        )
        model = compiled_model("stop")
        found.append(gradients(model, lambda m=model: m.objective({"views": views()})["loss"]))
    del METHODS["stop"]
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(*found, strict=True))


def test_the_least_epsilon_that_is_allowed_does_not_overflow():
    cosines = tf.constant([[1.0, -1.0, 0.3], [-1.0, 1.0, 0.9], [0.2, 0.1, 1.0]])
    least, _ = SwAVOptions.__dataclass_fields__["sinkhorn_epsilon"].metadata["limits"]
    codes = sinkhorn_knopp(cosines, least, 3)
    np.testing.assert_allclose(codes.numpy().sum(axis=1), 1, rtol=1e-4)
