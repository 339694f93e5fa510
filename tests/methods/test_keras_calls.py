"""What Keras people do with a model, of every method: save, load, clone, evaluate, predict, arrays."""

import copy
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.keras_models import (
    BATCH,
    IMAGES,
    METHODS,
    arguments,
    assert_same,
    batches,
    compiled_model,
    fit,
    state,
    views,
)

from simsiam_tf import optimizers

IN_SHORT = ("simsiam",)  # the others are slow tests
every_method = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in IN_SHORT else pytest.mark.slow) for name in METHODS]
)


@every_method
@pytest.mark.slow
def test_a_loaded_model_trains_on_where_the_saved_one_stood(name, tmp_path):
    whole, halved = compiled_model(name), compiled_model(name)
    fit(whole, 2)
    fit(halved, callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")])
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(halved) and arguments(loaded) == arguments(halved)
    assert [v.path for v in loaded.learned_variables()] == [v.path for v in halved.learned_variables()]
    assert_same(state(loaded), state(halved))
    fit(loaded)
    assert_same(state(loaded), state(whole))
    moved = [(a != b).any() for a, b in zip(state(loaded).values(), state(halved).values(), strict=True)]
    assert sum(moved) > len(moved) / 2


@every_method
@pytest.mark.slow
def test_arrays_are_views_and_labels_are_not_read(name):
    """fit(views), fit(views, labels) and train_on_batch are the same training as of a dataset."""
    expected, x = fit(compiled_model(name), 2)["loss"], views()
    given = {"views": x, "index": np.arange(IMAGES)} if name == "average" else x
    for labels, eagerly in ((None, False), (np.arange(IMAGES), True)):
        how = {"batch_size": BATCH, "epochs": 2, "shuffle": False, "verbose": 0}
        found = compiled_model(name, eagerly).fit(given, labels, **how).history["loss"]
        assert found == pytest.approx(expected, abs=1e-5) and len(set(found)) == 2
    model, losses = compiled_model(name), []
    for i in range(0, IMAGES, BATCH):
        part = tf.nest.map_structure(lambda a, i=i: a[i : i + BATCH], given)
        losses.append(model.train_on_batch(part, return_dict=True)["loss"])
    assert np.mean(losses) == pytest.approx(expected[0], abs=1e-6)


@every_method
def test_evaluation_is_by_inference_and_changes_nothing(name):
    model = compiled_model(name)
    history = fit(model, 2, validation_data=views(seed=1))
    before = state(model)
    found = model.evaluate(views(seed=1), verbose=0, batch_size=BATCH, return_dict=True)
    assert_same(state(model), before)
    assert set(found) == {"loss", "std"} == set(fit(compiled_model(name)))
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
    model, (x, _) = compiled_model(name), views()
    features = model.backbone(x, training=False).numpy()
    np.testing.assert_allclose(model.predict(x, batch_size=10, verbose=0), features, atol=1e-6)
    np.testing.assert_allclose(model.predict_on_batch(x), features, atol=1e-6)
    with pytest.raises(ValueError, match="predict takes images"):
        model.predict(batches(), verbose=0)


@every_method
def test_clones_have_the_arguments_and_weights_of_their_own(name):
    model = compiled_model(name)
    for clone in (keras.models.clone_model(model), type(model).from_config(model.get_config())):
        assert arguments(clone) == arguments(model)
        assert [v.shape for v in clone.weights] == [v.shape for v in model.weights]
        assert clone.backbone is not model.backbone
    fit(model)
    assert_same(state(copy.deepcopy(model)), state(model))


# What Keras would get wrong in silence, or say unclearly.


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (views()[0], "compares 2 views.*1 views.*data.pretraining"),
        (
            (views()[0], np.arange(IMAGES)),
            r"alike in shape. Received: \((8|None), 8, 8, 1\) and \((8|None),\)",
        ),
        ({"image": views()[0]}, "no \"views\", only 'image'"),
        ((views(), np.arange(IMAGES), np.ones(IMAGES)), "Leave out sample_weight"),
        ((*views(), views()[0]), "Received: 3 views"),
    ],
    ids=["one array", "images and labels", "no views", "weights", "three"],
)
@pytest.mark.parametrize("eagerly", [True, False])
def test_data_that_are_no_views_are_an_error(data, message, eagerly):
    model = compiled_model("simsiam", eagerly)
    before = [v.numpy() for v in model.weights]
    for call in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=message):
            call(tf.data.Dataset.from_tensor_slices(data).batch(BATCH), verbose=0)
    assert all((v.numpy() == w).all() for v, w in zip(model.weights, before, strict=True))


def test_an_average_needs_to_know_the_images_and_a_loss_is_the_methods_own():
    with pytest.raises(ValueError, match="'views': \\(x1, x2\\), 'index'|\"index\": np.arange"):
        compiled_model("average").fit(views(), verbose=0)
    for argument in ({"loss": "mse"}, {"metrics": ["accuracy"]}):
        with pytest.raises(ValueError, match=f"SimSiam has its own loss.*Leave out {next(iter(argument))}"):
            compiled_model("simsiam").compile("sgd", **argument)


def test_what_is_frozen_and_its_precision_are_saved(tmp_path):
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    model = compiled_model("byol")
    model.backbone.trainable = model.predictor.trainable = False
    model.compile(optimizers.SGD(0.1), run_eagerly=True)
    fit(model)
    model.save(tmp_path / "model.keras")
    keras.mixed_precision.set_dtype_policy("float32")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert keras.mixed_precision.dtype_policy().name == "float32"
    learned = [v.path for v in loaded.learned_variables()]
    assert learned == [v.path for v in model.learned_variables()]
    assert learned and all(path.startswith("projector") for path in learned)
    for one, two in zip(model._flatten_layers(), loaded._flatten_layers(), strict=True):
        assert (one.compute_dtype, one.trainable) == (two.compute_dtype, two.trainable), one.path
    assert loaded.projector.get_layer("fc1").compute_dtype == "bfloat16"
    assert_same(state(loaded), state(model))


@pytest.mark.slow
def test_another_process_loads_a_model(tmp_path):
    model = compiled_model("average")
    fit(model)
    model.save(tmp_path / "model.keras")
    code = (
        "import sys, simsiam_tf.methods, keras\n"
        "model = keras.saving.load_model(sys.argv[1])\n"
        "total = float(abs(model.averages.slices[3].numpy()).sum())\n"
        "print(type(model).__module__, total, model.optimizer.l2)"
    )
    command = [sys.executable, "-c", code, tmp_path / "model.keras"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    where, total, l2 = done.stdout.split()
    assert where == "simsiam_tf.methods.moving_average" and float(l2) == 1e-4
    assert float(total) == float(abs(model.averages.slices[3].numpy()).sum()) > 0


def test_float16_learns_as_float32_does():
    moved = []
    for policy in ("float32", "mixed_float16"):
        keras.mixed_precision.set_dtype_policy(policy)
        model = compiled_model("simsiam fixed")
        kernel = model.projector.get_layer("fc1").kernel
        before = kernel.numpy()
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        fit(model)
        moved.append(np.abs(kernel.numpy() - before).mean())
    assert moved[1] == pytest.approx(moved[0], rel=0.2) and moved[0] > 1e-3
