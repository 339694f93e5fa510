"""ss.callbacks.Diagnosis: its records are those of the steps, and fit is diagnosed as a run is."""

import keras
import numpy as np
import pytest
from helpers.keras_models import IMAGES, SIZE, compiled_model, network

from simsiam_tf import data, nets, optimizers
from simsiam_tf.evaluate import diagnosis as diagnoses
from simsiam_tf.features import extraction
from simsiam_tf.methods import SimSiam
from simsiam_tf.training import callbacks


def source(low=0, high=256):
    return data.from_arrays(
        "noise", np.random.default_rng(0).integers(low, high, (IMAGES, SIZE, SIZE, 1), np.uint8)
    )


def noisy_views():
    """Two views of each image: the evaluation views with noise."""
    views = data.Views(data.pretraining(source(), batch_size=8, size=SIZE).augmentation)
    x = extraction.raw_pixels(source(), views).reshape(IMAGES, SIZE, SIZE, 1)
    x = (x - views.augmentation.mean) / views.augmentation.std
    rng = np.random.default_rng(1)
    return tuple((x + rng.normal(0, 1e-3, x.shape)).astype("float32") for _ in range(2))


def rank_by_hand(z):
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    variances = np.linalg.svd(unit - unit.mean(0), compute_uv=False) ** 2
    share = variances / variances.sum()
    share = share[share > 1e-12]
    return np.exp(-(share * np.log(share)).sum())


def test_records_are_the_means_of_the_steps(monkeypatch):
    model, losses, stds, step = compiled_model("simsiam"), [], [], SimSiam.step

    def noted(self, batch):
        outputs = step(self, batch)
        losses.append(float(outputs["loss"]))
        stds.append(float(outputs["std"]))
        return outputs

    monkeypatch.setattr(SimSiam, "step", noted)
    callback = callbacks.Diagnosis(source(), every=2, size=SIZE)
    model.fit(noisy_views(), batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=[callback])
    assert len(losses) == 9 and [r["step"] for r in callback.records] == [2, 4, 6, 8, 9]
    parts = [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8), slice(8, 9)]
    for record, part in zip(callback.records, parts, strict=True):
        assert record["loss"] == pytest.approx(np.mean(losses[part]), abs=1e-5)
        assert record["loss_spread"] == pytest.approx(np.std(losses[part]), abs=1e-5)
        assert record["std"] == pytest.approx(np.mean(stds[part]), abs=1e-5)
    features = np.concatenate([model.predict(x, verbose=0) for x in callback._images])
    z = model.projector(features, training=False).numpy()
    assert callback.records[-1]["rank"] == pytest.approx(rank_by_hand(z), rel=1e-4)
    assert callback.diagnosis.healthy and callback.loss_type == "cross_entropy"


def fit(model, callback):
    model.compile(optimizers.SGD(0.0), run_eagerly=True)
    model.fit(noisy_views(), batch_size=8, epochs=4, verbose=0, callbacks=[callback])
    return callback.diagnosis


def test_a_collapse_is_named_with_the_setting_that_causes_it(capsys):
    model = SimSiam(network(), d=6, predictor_hidden=32, projector_layers=2, bn="none", stop_gradient=False)
    last = model.projector.layers[-1]
    last.set_weights([np.zeros_like(last.get_weights()[0]), np.ones(6)])
    found = fit(model, callbacks.Diagnosis(source(), every=1, size=SIZE))
    assert found.name == "collapse" and "This run has stop_gradient=false" in found.advice
    err = capsys.readouterr().err
    assert err.count("collapse:") == 1 and "step 3: collapse" in err


def test_constant_features_at_inference_are_named_with_their_momentum():
    images = keras.Input((SIZE, SIZE, 1))
    x = keras.layers.Dense(6, bias_initializer=keras.initializers.Constant(100))(
        keras.layers.Flatten()(images)
    )
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.999)(x))
    backbone = keras.Model(images, x)
    for lowered in (False, True):
        if lowered:
            nets.lower_momentum(backbone, 12)
        model = SimSiam(backbone, d=6, predictor_hidden=32, projector_layers=2)
        found = fit(model, callbacks.Diagnosis(source(), every=1, size=SIZE))
        assert found.name == ("healthy" if lowered else "constant features"), found
        assert (
            lowered
            or "at momentum 0.999 they keep 98% of their initial values after 12 steps"
            in found.reason  # 0.999 ** 24
        )


def test_each_view_is_an_update_of_the_moving_averages(monkeypatch):
    """Of two views an average moves twice a step."""
    updates = []
    monkeypatch.setattr(callbacks.batch_norm, "unsettled", lambda network, count: updates.append(count))
    model = SimSiam(network(), d=6, predictor_hidden=32, projector_layers=2)
    fit(model, callbacks.Diagnosis(source(), every=3, size=SIZE))
    assert updates == [6, 12, 18, 24]


def test_each_method_is_judged_by_the_limits_of_its_loss():
    kinds = {
        n: callbacks.method_of_model(compiled_model(n))[0] for n in ("simclr", "byol", "average", "vicreg")
    }
    assert kinds == {"simclr": "contrast", "byol": "distance", "average": "cosine", "vicreg": "redundancy"}
    assert set(kinds.values()) < set(diagnoses.LIMITS)

    class Mine(SimSiam):
        pass

    assert callbacks.method_of_model(Mine(network(), d=6))[0] == "other"
