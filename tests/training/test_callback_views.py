"""Callbacks in `fit` evaluate views of the size and the augmentation that the model is trained on."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf import callbacks, data, evaluate, optimizers
from simsiam_tf.methods import SimSiam

SIZE, IMAGES = 20, 12
rng = np.random.default_rng(0)
LABELLED = data.from_arrays(
    "seven", rng.integers(0, 256, (IMAGES, 70, 70, 1), np.uint8), np.arange(IMAGES) % 2
)
OWN = dataclasses.replace(data.AUGMENTATIONS["grayscale"], size=SIZE, mean=(0.1,), std=(0.7,))


def fitted(*given, views=None, side=SIZE):
    """A model with feature maps after a step of `fit` on views of SIZE pixels."""
    network = keras.Sequential([keras.Input((side, side, 1)), keras.layers.Conv2D(6, 3)])
    model = SimSiam(network, d=4, predictor_hidden=8, projector_layers=2)
    model.compile(optimizers.SGD(0.0), run_eagerly=True)
    views = data.pretraining(LABELLED, OWN, batch_size=6) if views is None else views
    model.fit(views, steps_per_epoch=1, verbose=0, callbacks=[*given])
    return model


def test_maps_are_averaged_over_space(tmp_path):
    model = fitted(callbacks.LabelFree(LABELLED), side=None)
    x = rng.normal(size=(2, SIZE, SIZE, 1)).astype("float32")
    maps = model._constructor.arguments["backbone"](x)
    assert maps.shape[1:] == (18, 18, 6)
    np.testing.assert_allclose(model(x), np.mean(maps, axis=(1, 2)), rtol=1e-5, atol=1e-6)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(x), model(x))
    classifier = evaluate.SupervisedModel(model._constructor.arguments["backbone"], 3)
    assert classifier(x).shape == (2, 3)


@pytest.mark.parametrize("side", [SIZE, None])
def test_views_are_those_of_the_training(side):
    knn, label_free = callbacks.KNN("digits", every=0), callbacks.LabelFree(LABELLED, every=0)
    diagnosis = callbacks.Diagnosis(LABELLED)
    fitted(knn, label_free, diagnosis, side=side)
    assert knn.monitor.views.augmentation == label_free.monitor.views.augmentation == OWN
    (x,) = diagnosis._images
    expected = data.Views(OWN).normalise(data.Views(OWN).evaluation_view(tf.constant(LABELLED.images)))
    np.testing.assert_allclose(x, expected, atol=1e-6)


def test_of_other_data_the_size_is_taken_and_what_is_given_stays():
    arrays = tuple(rng.normal(size=(6, SIZE, SIZE, 1)).astype("float32") for _ in range(2))
    mapped = data.pretraining(LABELLED, OWN, batch_size=6).map(lambda batch: batch)
    for views in (arrays, mapped, None):
        auto = callbacks.LabelFree(LABELLED, every=0)
        named = callbacks.LabelFree(LABELLED, "cifar", every=0, flip_p=0.0)
        fitted(auto, named, views=views)
        default = OWN if views is None else dataclasses.replace(data.AUGMENTATIONS["imagenet"], size=SIZE)
        assert auto.monitor.views.augmentation == default
        cifar = dataclasses.replace(data.AUGMENTATIONS["cifar"], size=SIZE, flip_p=0.0)
        assert named.monitor.views.augmentation == cifar


def test_another_size_is_refused_when_training_begins():
    for given in (callbacks.KNN("digits", size=24), callbacks.Diagnosis("digits", size=24)):
        with pytest.raises(
            ValueError, match=r"^size=24: the backbone takes images of 20 pixels alone\. Pass .*=20"
        ):
            fitted(given)
        fitted(given, side=None)


def test_knn_takes_the_size_of_the_backbone():
    network = keras.Sequential([keras.Input((9, 9, 1)), keras.layers.Flatten()])
    assert evaluate.knn(network, "digits")["knn20"] > 0.9


def test_a_change_that_is_no_field_of_an_augmentation_names_the_field():
    for changes, hint in (
        ({"image_size": 32}, "image_size=32: no augmentation has this field. Pass size=96."),
        ({"crop_area": 0.2}, r"Pass area=\(0.2, 1.0\)"),
        ({"flip": 0.5}, "Did you mean flip_p?"),
    ):
        for function in (data.pretraining, callbacks.Diagnosis, callbacks.KNN, callbacks.LabelFree):
            with pytest.raises(ValueError, match=hint):
                function("digits", **changes)
