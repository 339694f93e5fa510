"""A head on a backbone: its loss, gradient and metrics by hand, and a head that is added by a row."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf import optimizers
from simsiam_tf.command_line import cli
from simsiam_tf.config import LinearConfig
from simsiam_tf.data import AUGMENTATIONS, Views, from_arrays, open_source, pipeline, pretraining
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate.heads import HEADS, HeadSpec, linear, top
from simsiam_tf.evaluate.label_splits import Splits
from simsiam_tf.evaluate.supervised_model import SupervisedModel, evaluate_model
from simsiam_tf.loop.task import RunComponents
from simsiam_tf.training import supervised


def test_loss_and_gradient_by_hand():
    backbone = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten()])
    rng = np.random.default_rng(0)
    model = SupervisedModel(backbone, outputs=3)
    x, target = rng.normal(size=(2, 2, 2, 1)).astype(np.float32), np.array([1, 2])
    kernel = model.head.kernel.numpy()
    assert abs(kernel).max() < 0.05 and not model.head.bias.numpy().any()
    with tf.GradientTape() as tape:
        outputs = model.objective({"views": (tf.constant(x),), "target": tf.constant(target)})
    gradient = tape.gradient(outputs["loss"], model.head.kernel.value)
    logits = x.reshape(2, 4) @ kernel
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    onehot = np.eye(3)[[1, 2]]
    np.testing.assert_allclose(outputs["loss"], -np.mean(np.log(p)[onehot == 1]), rtol=1e-5)
    np.testing.assert_allclose(gradient, x.reshape(2, 4).T @ (p - onehot) / 2, rtol=1e-4, atol=1e-6)


def test_a_new_head_is_a_row(monkeypatch):
    """Regression of the label as a number: a step by hand, then its error on test images."""
    error = lambda target, outputs: abs(outputs[:, 0] - np.float32(target))
    squares = lambda target, outputs: tf.reduce_mean((outputs[:, 0] - tf.cast(target, tf.float32)) ** 2)
    absolute = lambda target, outputs: tf.abs(outputs[:, 0] - tf.cast(target, tf.float32))
    row = HeadSpec(linear, squares, absolute, "absolute_error", {"mean_error": error})
    monkeypatch.setitem(HEADS, "number", row)
    source, views = open_source("digits:test[:50]"), Views(AUGMENTATIONS["grayscale"], count=1)
    backbone = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    model = SupervisedModel(backbone, outputs=1, head="number")
    model.compile(optimizers.SGD(0.01, momentum=0.0))
    (batch,) = pipeline.StepBatches(source, views, 50, targets=True).dataset(0, 1)
    features = batch["views"][0].numpy().reshape(50, -1)
    kernel, target = model.head.kernel.numpy(), batch["target"].numpy()
    residual = (features @ kernel)[:, 0] - target
    logs = model.train_step(batch)
    assert float(logs["absolute_error"]) == pytest.approx(abs(residual).mean(), rel=1e-4)
    np.testing.assert_allclose(
        model.head.kernel, kernel - 0.01 * 2 * features.T @ residual[:, None] / 50, rtol=1e-3, atol=1e-4
    )
    outputs = model.predict(views.normalise(views.evaluation_view(tf.constant(source.images))), verbose=0)
    found = evaluate_model(model, source, views)
    assert found == {"mean_error": pytest.approx(abs(outputs[:, 0] - source.labels).mean(), rel=1e-4)}
    config = cli.parse(LinearConfig, ["--weights=x", "--eval_every=0"])
    workers = Workers(tf.distribute.get_strategy())
    built = RunComponents(workers, source, views, model, 1), None, Splits(source, source, 1)
    monkeypatch.setattr(supervised, "build_supervised", lambda *args: built)
    task = supervised.Supervised(config, workers, None)
    assert (task.metric_name, task.evaluation_name) == ("absolute_error", "mean_error")


def test_a_batch_without_targets_is_refused():
    model = SupervisedModel(keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten()]), outputs=3)
    with pytest.raises(ValueError, match="targets=True"):
        model.objective({"views": (tf.zeros([1, 2, 2, 1]),), "index": tf.constant([0])})


def test_keras_evaluate_uses_the_targets_of_its_batches():
    """In inference mode, on other images than those of the training."""
    source, views = open_source("digits:test[:64]"), Views(AUGMENTATIONS["grayscale"], count=1)
    layers = [keras.layers.Flatten(), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    model = SupervisedModel(keras.Sequential([keras.Input((28, 28, 1)), *layers]), 10, frozen=False)
    model.compile(optimizers.SGD(0.01))
    before = [w.numpy() for w in model.weights]
    dataset = pretraining(source, views.augmentation, 64, views=views.count, targets=True)
    loss, accuracy = model.evaluate(dataset, verbose=0)
    (batch,) = pipeline.StepBatches(source, views, 64, targets=True).dataset(0, 1)
    logits = model(batch["views"][0], training=False)
    expected = keras.losses.sparse_categorical_crossentropy(batch["target"], logits, from_logits=True)
    assert accuracy == pytest.approx(np.mean(np.argmax(logits, axis=1) == batch["target"]))
    assert loss == pytest.approx(np.mean(expected), rel=1e-4)
    assert all((a == w.numpy()).all() for a, w in zip(before, model.weights, strict=True))


def test_top_1_and_top_5_by_hand():
    """The backbone gives the pixel's value; the head's biases order the classes 7, 6, …, 0."""
    source = open_source("digits:test[:50]")
    backbone = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    model = SupervisedModel(backbone, outputs=10)
    model.head.kernel.assign(tf.zeros_like(model.head.kernel))
    order = np.array([7, 6, 5, 4, 3, 2, 1, 0, 9, 8])
    bias = np.zeros(10, np.float32)
    bias[order] = -np.arange(10)
    model.head.bias.assign(bias)
    views = Views(dataclasses.replace(AUGMENTATIONS["grayscale"], size=8))
    found = evaluate_model(model, source, views)
    assert found["top1"] == pytest.approx(np.mean(source.labels == 7))
    assert found["top5"] == pytest.approx(np.mean(np.isin(source.labels, order[:5])))


def test_a_constant_classifier_scores_nothing():
    source = open_source("digits:test[:50]")
    backbone = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    model = SupervisedModel(backbone, outputs=10)
    model.head.kernel.assign(tf.zeros_like(model.head.kernel))
    assert evaluate_model(model, source, Views(AUGMENTATIONS["grayscale"])) == {"top1": 0.0, "top5": 0.0}


def test_five_classes_have_no_top5():
    source = open_source("digits:test[:50]")
    backbone = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    few = from_arrays("few", source.images, np.minimum(source.labels, 4), "abcde")
    assert set(evaluate_model(SupervisedModel(backbone, 5), few, Views(AUGMENTATIONS["grayscale"]))) == {
        "top1"
    }


def test_logits_that_are_no_numbers_are_wrong():
    nan = np.full((4, 10), np.nan)
    assert not top(1)(np.arange(4), nan).any() and not top(5)(np.arange(4), nan).any()
    logits = np.zeros((1, 10))
    logits[0, 3], logits[0, 7] = 1.0, np.nan
    assert top(5)(np.array([3]), logits).all() and not top(1)(np.array([3]), logits).any()
