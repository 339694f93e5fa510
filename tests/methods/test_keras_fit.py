"""Keras' fit on views: resumed, cut, validated and on two replicas it sees the data that are due."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.keras_models import BATCH, IMAGES, SIZE, assert_same, compiled_model, state, views

from simsiam_tf import config, data
from simsiam_tf.command_line import cli
from simsiam_tf.distributed import strategies
from simsiam_tf.training import pretraining


def epochs_of(seed=3, **kwargs):
    """Three batches an epoch, compiled_model anew as in another process."""
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
    model = compiled_model("average")
    model.fit(epochs_of(), epochs=3, verbose=0)
    return state(model)


@pytest.mark.slow
def test_fit_resumed_sees_the_epoch_that_is_due(three_epochs, tmp_path):
    backup = lambda: keras.callbacks.BackupAndRestore(tmp_path / "backup")
    for end in (1, 1, None):  # the second ends before it has taken a step
        model = compiled_model("average")
        try:
            model.fit(epochs_of(), epochs=3, verbose=0, callbacks=[backup(), Ended(end)])
        except KeyboardInterrupt:
            assert end is not None
    assert_same(state(model), three_epochs)


def test_fit_again_or_after_loading_goes_on(three_epochs, tmp_path):
    model, train = compiled_model("average"), epochs_of()
    next(iter(train))  # which counts for nothing
    model.fit(train, verbose=0, validation_data=train)
    model.save(tmp_path / "model.keras")
    model.fit(train, epochs=2, verbose=0)
    assert_same(state(model), three_epochs)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.fit(epochs_of(), epochs=3, initial_epoch=1, steps_per_epoch=3, verbose=0)
    assert_same(state(loaded), three_epochs)


def test_an_epoch_may_be_cut_anywhere(three_epochs):
    model = compiled_model("average")
    for epochs, steps in ((2, 2), (1, 5)):
        model.fit(epochs_of(), epochs=epochs, steps_per_epoch=steps, verbose=0)
    assert_same(state(model), three_epochs)


@pytest.mark.slow
def test_the_first_epoch_can_be_chosen():
    dataset = epochs_of()
    third = [list(dataset.as_numpy_iterator()) for _ in range(3)][2]
    for a, b in zip(third, epochs_of(first_epoch=2).as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(a["views"], b["views"])
    losses = []
    for first, initial in ((2, 0), (0, 2), (0, 0)):
        epoch = {"initial_epoch": initial, "epochs": initial + 1}
        losses.append(
            compiled_model("simsiam").fit(epochs_of(first_epoch=first), **epoch, verbose=0).history["loss"]
        )
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.slow
def test_validation_sees_the_same_views_every_time():
    model, validation = compiled_model("simsiam"), epochs_of(seed=4)
    history = model.fit(epochs_of(), epochs=2, verbose=0, validation_data=validation).history
    losses = [model.evaluate(again, verbose=0) for again in (validation, validation, epochs_of(seed=4))]
    assert losses[0] == losses[1] == losses[2] != model.evaluate(epochs_of(seed=5), verbose=0)
    assert losses[0] == [history["val_loss"][1], history["val_std"][1]]


@pytest.mark.parametrize("name", ["simsiam", "average"])
@pytest.mark.slow
def test_fit_on_two_replicas_is_fit_on_one(name, two_replicas):
    """The same batches in the same order; loss and std are of the whole batch, of training and evaluation."""
    with two_replicas.scope():
        two = compiled_model(name, eagerly=False)
    one, found = compiled_model(name, eagerly=False), []
    for model in (one, two):
        found.append(model.fit(epochs_of(), epochs=2, verbose=0, validation_data=epochs_of(seed=4)).history)
    assert found[0].keys() == {"loss", "std", "val_loss", "val_std"}
    for key, values in found[0].items():
        np.testing.assert_allclose(found[1][key], values, rtol=1e-4, atol=1e-4, err_msg=key)
    images = views()[0]
    ours, theirs = (model.predict(images, verbose=0, batch_size=BATCH) for model in (one, two))
    np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_batch_that_does_not_divide_over_replicas_is_an_error(two_replicas):
    with two_replicas.scope():
        model = compiled_model("simsiam", eagerly=False)
    odd = tuple(x[:13] for x in views())
    for call in (model.fit, model.evaluate):
        with pytest.raises(tf.errors.OpError, match="not divide over 2 replicas.*drop_remainder"):
            call(odd, batch_size=BATCH, verbose=0)


@pytest.mark.slow
def test_two_runs_on_two_replicas_in_one_process(two_replicas, tmp_path):
    """Their collectives have other shapes, and so have those of a strategy of the user's."""
    for d in (16, 32):
        argv = f"--data=digits --backbone=resnet10 --width=0.125 --batch_size=512 --epochs=1 --d={d}"
        more = ["--strategy=mirrored", "--monitor=none", f"--workdir={tmp_path / str(d)}"]
        assert pretraining.pretrain(cli.parse(config.PretrainConfig, [*argv.split(), *more])).status == 0
    ours = strategies.strategy_by_name("mirrored")
    assert ours is strategies.strategy_by_name("mirrored") is not two_replicas
    total = lambda x: tf.distribute.get_replica_context().all_reduce("SUM", x)
    for size in (3, 5):
        for strategy in (two_replicas, ours):
            found = strategy.run(tf.function(lambda n=size: total(tf.ones([n]))))
            assert [len(v) for v in strategy.experimental_local_results(found)] == [size] * 2
