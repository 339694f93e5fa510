"""Small views beside the two full ones: how they are made, what the losses do with them, whole runs."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import twins
from helpers.compared_methods import BATCH, SIZE, D, unit
from helpers.runs import TINY
from PIL import Image

from simsiam_tf import nets, optimizers, pretrain
from simsiam_tf.command_line import cli
from simsiam_tf.config import PretrainConfig
from simsiam_tf.data import AUGMENTATIONS, Views, from_arrays, pretraining
from simsiam_tf.data.augment.crops import TRIES
from simsiam_tf.data.sampling import uniforms
from simsiam_tf.methods import SimCLR, SimSiam
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import build_run, run_data

SMALL = 2  # small views
LOCAL = ("--local_views=2", "--local_size=5", "--local_crop_area=0.3")
METHODS = {
    "simsiam": lambda b: SimSiam(b, d=D, projector_layers=2, local_views=SMALL),
    "simclr": lambda b: SimCLR(b, d=D, projector_layers=2, temperature=0.2, local_views=SMALL),
    "simclr predictor": lambda b: SimCLR(b, d=D, temperature=0.2, predictor="trained", local_views=SMALL),
}
every_method = pytest.mark.parametrize("name", METHODS)


def compiled_model(name, seed=0):
    keras.utils.set_random_seed(seed)
    images = keras.Input((None, None, 1))
    x = keras.layers.ReLU()(nets.BatchNorm(name="bn")(nets.Conv(6, 3, 2)(images)))
    model = METHODS[name](keras.Model(images, keras.layers.GlobalAveragePooling2D()(x)))
    model.compile(optimizers.SGD(0.1, 0.9, 1e-4), run_eagerly=True)
    return model


def views(seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(BATCH, SIZE, SIZE, 1))
    sides = [SIZE, SIZE, *[5] * SMALL]
    return tuple(
        tf.constant(images[:, :s, :s] + rng.normal(0, 0.5, (BATCH, s, s, 1)), tf.float32) for s in sides
    )


def embeddings(model):
    """z and p of every view, in float64; small views are one batch of BN."""
    given = views()
    z = [*map(model.f, given[:2]), *tf.split(model.f(tf.concat(given[2:], 0)), SMALL)]
    return [[np.asarray(u, np.float64) for u in each] for each in (z, map(model.h, z))]


def test_simsiams_loss_is_the_mean_of_two_and_2n_similarities():
    model = compiled_model("simsiam")
    z, p = embeddings(model)
    d = [[-(unit(a) * unit(b)).sum(1).mean() for b in z] for a in p]
    expected = (d[0][1] + d[1][0] + d[2][0] + d[2][1] + d[3][0] + d[3][1]) / 6
    outputs = model.objective({"views": views()})
    assert float(outputs["loss"]) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(outputs["z"], model.f(views()[0]))


@pytest.mark.parametrize("name", ["simclr", "simclr predictor"])
def test_simclrs_small_views_seek_both_full_ones(name):
    model = compiled_model(name)
    z, p = embeddings(model)
    each = []
    for query, positive in ((0, 1), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1)):
        for i in range(BATCH):
            e = np.exp(unit(p[query])[i] @ unit(np.stack(z[:2])).transpose(0, 2, 1) / 0.2)  # [2, BATCH]
            others = e.sum() - e[1 - positive, i]  # neither itself nor the other view of its image
            each.append(-np.log(e[positive, i] / others))
    outputs = model.objective({"views": views()})
    assert float(outputs["loss"]) == pytest.approx(2 * np.mean(each), rel=1e-5)


def test_small_views_are_no_targets():
    """A gradient reaches a small view's z through its prediction alone."""
    model = compiled_model("simsiam")
    z = [tf.constant(np.random.default_rng(i).normal(size=(BATCH, D)), tf.float32) for i in range(4)]
    model.project, model.h = lambda views: z, tf.stop_gradient
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = model.objective({"views": views()})["loss"]
    assert all(g is None for g in tape.gradient(loss, z))
    model.stop = tf.identity
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = model.objective({"views": views()})["loss"]
    assert [g is not None for g in tape.gradient(loss, z)] == [True, True, False, False]


def test_moving_statistics_follow_the_full_views_last():
    model = compiled_model("simsiam")
    bn, given = model.backbone.get_layer("bn"), views()
    seen = keras.Model(model.backbone.inputs, bn.input)
    expected = bn.moving_mean.numpy()
    for x in (tf.concat(given[2:], 0), *given[:2]):
        expected = 0.9 * expected + 0.1 * seen(x).numpy().mean((0, 1, 2))
    model.project(given)
    np.testing.assert_allclose(bn.moving_mean.numpy(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["simclr predictor", "simsiam"])
@pytest.mark.slow
def test_two_replicas_equal_one(name, two_replicas):
    make = functools.partial(compiled_model, name)
    found = twins.after_steps(make, [views(step) for step in range(2)], two_replicas, rel=1e-4)
    twins.assert_moved_alike(*found, two_replicas, atol=1e-4, rtol=1e-3)


@every_method
def test_a_loaded_model_has_small_views(name, tmp_path):
    model = compiled_model(name)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert (loaded.local_views, loaded.view_count, loaded.pairs) == (SMALL, 4, model.pairs)
    with pytest.raises(ValueError, match="compares 4 views.*Received: 2 views"):
        loaded.fit(views()[:2], verbose=0)
    assert np.isfinite(loaded.evaluate(views(), verbose=0)[0])


# How they are made


def test_small_views_are_smaller_parts():
    base = AUGMENTATIONS["imagenet"]
    local = base.for_local_views()
    assert (local.size, local.area) == (96, (pytest.approx(0.05), 0.14))  # those of SwAV
    made = Views(base, 2, more=[base.for_local_views(40, 0.3)] * 2)
    assert made.count == 4 and made.augmentation is base
    tried, place = made.box_draws(uniforms(0, 0, 500, made.draws))
    assert tried.shape == (500, 4, TRIES, 2) and place.shape == (500, 4, 2)
    share = tf.reduce_prod(tried, axis=-1).numpy()
    for view, (low, high) in enumerate([(0.2, 1.0)] * 2 + [(0.3 * 5 / 14, 0.3)] * 2):
        assert low <= share[:, view].min() < low + 0.02 and high - 0.02 < share[:, view].max() <= high + 1e-6
    image = tf.zeros([90, 70, 3], tf.uint8)
    crops = made.crop_image(image, tried[0], place[0])
    assert [c.shape[0] for c in crops] == [224, 224, 40, 40]


def test_batches_have_them_last():
    images = np.random.default_rng(0).integers(0, 256, (20, 12, 12, 1), np.uint8)
    data = pretraining(
        from_arrays("noise", images), "grayscale", 10, local_views=2, local_size=5, size=12, blur_p=0.5
    )
    (batch,) = data.take(1)
    assert [v.shape for v in batch["views"]] == [(10, 12, 12, 1)] * 2 + [(10, 5, 5, 1)] * 2
    assert len({v.numpy().tobytes() for v in batch["views"]}) == 4


# Runs


def parse(*argv):
    return cli.parse(PretrainConfig, [*TINY, "--monitor=none", *argv])


@pytest.mark.slow
def test_a_preview_shows_them_and_a_dry_run_counts_them(tmp_path, capsys):
    argv = [*TINY, "--monitor=none", *LOCAL, f"--workdir={tmp_path}"]
    assert pretrain.main([*argv, "--preview"]) == 0
    assert "its 4 views" in capsys.readouterr().out
    picture = np.asarray(Image.open(tmp_path / "preview.png"))
    assert picture.shape == (16 + 8 * (16 + 8 * 14 + 8), 3 * (8 * 14 + 8) + 2 * (5 * 14 + 8), 3)
    assert picture[32 + 5 * 14 + 8 : 32 + 8 * 14 + 8, -(5 * 14 + 8) :].min() == 255  # below a small view
    assert pretrain.main([*argv, "--dry_run"]) == 0
    assert "2 of 8 pixels, 2 of 5 pixels" in capsys.readouterr().out


def test_flags_reach_views_and_model():
    source, made = build_run.open_data(parse(*LOCAL))
    assert [a.size for a in made.each] == [8, 8, 5, 5] and made.each[2].area[1] == 0.3
    model = build_run.build_model(parse(*LOCAL), source.channels, 8)
    assert (model.local_views, model.view_count) == (2, 4)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--local_size=5"], "--local_size=5 has no effect with --local_views=0"),
        (["--local_views=2", "--alternate=5"], "local_views=2: is not for --alternate"),
        (
            ["--local_views=2", "--method=swav"],
            "--local_views=2 has no effect with a --method other than simsiam",
        ),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_what_does_not_go_together_is_one_line(argv, message, tmp_path, capsys):
    base = [f for f in TINY if "predictor" not in f]
    assert pretrain.main([*base, *argv, "--monitor=none", f"--workdir={tmp_path}"]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_network_of_one_size_is_refused():
    for size in (None, 8):
        images = keras.Input((size, size, 1))
        network = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))
        if size:
            with pytest.raises(UserError, match="resnet10 does not take views of 5 pixels.*`local_size`"):
                run_data.check_local_views(parse(*LOCAL), network, 5)
        else:
            run_data.check_local_views(parse(*LOCAL), network, 5)
