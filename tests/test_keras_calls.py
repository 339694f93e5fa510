"""What Keras people do with a model: save, load, clone, resume, evaluate, predict, arrays; for every method."""

import copy
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf import nets, optim, schedules
from simsiam_tf.methods import BYOL, Alternation, MoCo, MovingAverage, SimCLR, SimSiam, SwAV

IMAGES, BATCH, SIZE, D = 24, 8, 8, 6
SMALL = {"d": D, "projector_layers": 2}
METHODS = {
    "simsiam": lambda b: SimSiam(b, **SMALL, predictor_hidden=32, similarity="cross_entropy"),
    "simsiam fixed": lambda b: SimSiam(b, **SMALL, predictor_hidden=32, predictor="fixed"),
    "alternation": lambda b: Alternation(b, 4, **SMALL, predictor_hidden=32),
    "average": lambda b: MovingAverage(b, IMAGES, 0.7, **SMALL),
    "simclr": lambda b: SimCLR(b, **SMALL, temperature=0.2, predictor=True, stop_gradient=True),
    "moco": lambda b: MoCo(b, **SMALL, momentum=0.9, queue=40, seed=5),
    "moco groups": lambda b: MoCo(b, **SMALL, momentum=0.9, queue=40, groups=4),
    "byol": lambda b: BYOL(b, d=D, projector_hidden=12, predictor_hidden=12, momentum=0.5, steps=6),
    "swav": lambda b: SwAV(b, d=D, projector_hidden=12, prototypes=5, epsilon=0.5),
}
every_method = pytest.mark.parametrize("name", METHODS)


def network():
    x = images = keras.Input((SIZE, SIZE, 1))
    for width in (6, 8):
        x = keras.layers.ReLU()(nets.BatchNorm()(nets.Conv(width, 3, 2)(x)))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x), name="backbone")


def made(name, eagerly=True):
    """Eagerly, since to trace a step takes longer than the few that are taken here."""
    keras.utils.set_random_seed(0)
    model = METHODS[name](network())
    rates = schedules.cosine(0.1, 6), 0.9, 1e-4, {"projector": 0.05}
    model.compile(optim.SGD(*rates), run_eagerly=eagerly)
    return model


def views(count=IMAGES, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(count, SIZE, SIZE, 1))
    return tuple((images + rng.normal(0, 0.5, images.shape)).astype("float32") for _ in range(2))


def batches():
    """Three batches, in order."""
    return tf.data.Dataset.from_tensor_slices({"views": views(), "index": np.arange(IMAGES)}).batch(BATCH)


def state(model):
    """Everything that a next step depends on, by name."""
    found = {f"{i} {v.path}": v.numpy() for i, v in enumerate(model.variables + model.optimizer.variables)}
    averages = getattr(model, "averages", None)
    return found | {v.name: v.numpy() for v in (averages.variables if averages else ())}


def arguments(model):
    """Of the constructor, but for the backbone's layers."""
    return {**model.get_config(), "backbone": len(model.backbone.layers)}


def assert_same(one, two):
    assert len(one) == len(two) > 20
    for (name, a), b in zip(one.items(), two.values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def fit(model, epochs=1, **kwargs):
    return model.fit(batches(), epochs=epochs, verbose=0, **kwargs).history


@every_method
def test_a_loaded_model_trains_on_where_the_saved_one_stood(name, tmp_path):
    whole, halved = made(name), made(name)
    fit(whole, 2)
    fit(halved, callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")])
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(halved) and arguments(loaded) == arguments(halved)
    assert [v.path for v in loaded.learned_variables()] == [v.path for v in halved.learned_variables()]
    assert_same(state(loaded), state(halved))
    fit(loaded)
    assert_same(state(loaded), state(whole))
    moved = [np.abs(a - b).max() > 0 for a, b in zip(state(loaded).values(), state(halved).values(), strict=True)]
    assert sum(moved) > len(moved) / 2


@every_method
def test_arrays_are_views_and_labels_are_not_read(name):
    """fit(views), fit(views, labels) and train_on_batch are the same training as of a dataset."""
    expected, x = fit(made(name), 2)["loss"], views()
    given = {"views": x, "index": np.arange(IMAGES)} if name == "average" else x
    for labels, eagerly in ((None, False), (np.arange(IMAGES), True)):
        how = {"batch_size": BATCH, "epochs": 2, "shuffle": False, "verbose": 0}
        found = made(name, eagerly).fit(given, labels, **how).history["loss"]
        assert found == pytest.approx(expected, abs=1e-5) and len(set(found)) == 2
    model, losses = made(name), []
    for i in range(0, IMAGES, BATCH):
        part = tf.nest.map_structure(lambda a, i=i: a[i : i + BATCH], given)
        losses.append(model.train_on_batch(part, return_dict=True)["loss"])
    assert np.mean(losses) == pytest.approx(expected[0], abs=1e-6)


@every_method
def test_evaluation_is_by_inference_and_changes_nothing(name):
    model = made(name)
    history = fit(model, 2, validation_data=views(seed=1))
    before = state(model)
    found = model.evaluate(views(seed=1), verbose=0, batch_size=BATCH, return_dict=True)
    assert_same(state(model), before)
    assert set(found) == {"loss", "std"} == set(fit(made(name)))
    assert np.isfinite(history["val_loss"]).all() and history["val_loss"][0] != history["val_loss"][1]
    # In inference mode a row does not depend on the others: z of a batch is z of its halves.
    z = [model.projector(model.backbone(x), training=False) for x in views(seed=1)]
    if name == "simsiam":
        p = tf.nn.log_softmax(model.predictor(z[0])), tf.nn.log_softmax(model.predictor(z[1]))
        t = [tf.nn.softmax(u) for u in z]
        loss = -tf.reduce_mean(tf.reduce_sum(t[1] * p[0] + t[0] * p[1], -1)) / 2
        assert found["loss"] == pytest.approx(float(loss), rel=1e-5)


@every_method
def test_predictions_are_features_of_the_backbone(name):
    model, (x, _) = made(name), views()
    features = model.backbone(x, training=False).numpy()
    np.testing.assert_allclose(model.predict(x, batch_size=10, verbose=0), features, atol=1e-6)
    np.testing.assert_allclose(model.predict_on_batch(x), features, atol=1e-6)
    with pytest.raises(ValueError, match="predict takes images"):
        model.predict(batches(), verbose=0)


@every_method
def test_clones_have_the_arguments_and_weights_of_their_own(name):
    model = made(name)
    for clone in (keras.models.clone_model(model), type(model).from_config(model.get_config())):
        assert arguments(clone) == arguments(model)
        assert [v.shape for v in clone.weights] == [v.shape for v in model.weights]
        assert clone.backbone is not model.backbone
    fit(model)
    assert_same(state(copy.deepcopy(model)), state(model))
