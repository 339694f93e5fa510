"""What Keras people do with a model: save, load, clone, resume, evaluate, predict, arrays; for every method."""

import copy
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf import data, nets, optim, schedules
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


# Data: epochs of `data.pretraining` are those that are due.


def epochs_of(seed=3, **kwargs):
    """Three batches an epoch, made anew as in another process."""
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, SIZE, SIZE, 1), np.uint8)
    source = data.from_arrays("noise", images)
    return data.pretraining(source, batch_size=BATCH, seed=seed, size=SIZE, **kwargs)


class Ended(keras.callbacks.Callback):
    """Ends a training as a failure does, at the begin of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def three_epochs():
    """What three epochs without a break make of a model."""
    model = made("average")
    model.fit(epochs_of(), epochs=3, verbose=0)
    return state(model)


def test_fit_resumed_sees_the_epoch_that_is_due(three_epochs, tmp_path):
    backup = lambda: keras.callbacks.BackupAndRestore(tmp_path / "backup")
    for end in (2, 1, None):  # the second ends before it has begun an epoch
        model = made("average")
        try:
            model.fit(epochs_of(), epochs=3, verbose=0, callbacks=[backup(), Ended(end)])
        except KeyboardInterrupt:
            assert end is not None
    assert_same(state(model), three_epochs)


def test_fit_again_or_after_loading_goes_on(three_epochs, tmp_path):
    model, train = made("average"), epochs_of()
    next(iter(train))  # which counts for nothing
    model.fit(train, verbose=0, validation_data=train)
    model.save(tmp_path / "model.keras")
    model.fit(train, epochs=2, verbose=0)
    assert_same(state(model), three_epochs)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.fit(epochs_of(), epochs=3, initial_epoch=1, steps_per_epoch=3, verbose=0)
    assert_same(state(loaded), three_epochs)


def test_an_epoch_may_be_cut_anywhere(three_epochs):
    model = made("average")
    for epochs, steps in ((2, 2), (1, 5)):
        model.fit(epochs_of(), epochs=epochs, steps_per_epoch=steps, verbose=0)
    assert_same(state(model), three_epochs)


def test_the_first_epoch_can_be_chosen():
    dataset = epochs_of()
    third = [list(dataset.as_numpy_iterator()) for _ in range(3)][2]
    for a, b in zip(third, epochs_of(first_epoch=2).as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(a["views"], b["views"])
    losses = [
        made("simsiam").fit(epochs_of(first_epoch=first), epochs=1 + initial, initial_epoch=initial, verbose=0)
        for first, initial in ((2, 0), (0, 2), (0, 0))
    ]
    first, second, other = (history.history["loss"] for history in losses)
    assert first == second != other


def test_validation_sees_the_same_views_every_time():
    model, validation = made("simsiam"), epochs_of(seed=4)
    history = model.fit(epochs_of(), epochs=2, verbose=0, validation_data=validation).history
    losses = [model.evaluate(again, verbose=0) for again in (validation, validation, epochs_of(seed=4))]
    assert losses[0] == losses[1] == losses[2] != model.evaluate(epochs_of(seed=5), verbose=0)
    assert losses[0] == [history["val_loss"][1], history["val_std"][1]]


@pytest.mark.parametrize("name", ["simsiam", "average"])
def test_fit_on_two_replicas_is_fit_on_one(name, two_replicas):
    """The same batches in the same order; loss and std are of the whole batch, of training and evaluation."""
    with two_replicas.scope():
        two = made(name, eagerly=False)
    one, found = made(name, eagerly=False), []
    for model in (one, two):
        found.append(model.fit(epochs_of(), epochs=2, verbose=0, validation_data=epochs_of(seed=4)).history)
    assert found[0].keys() == {"loss", "std", "val_loss", "val_std"}
    for key, values in found[0].items():
        np.testing.assert_allclose(found[1][key], values, rtol=1e-4, atol=1e-4, err_msg=key)
    images = views()[0]
    ours, theirs = (model.predict(images, verbose=0, batch_size=BATCH) for model in (one, two))
    np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-4)
