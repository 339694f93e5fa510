"""What flags say is what the parts get."""

import math
import types

import keras
import numpy as np
import pytest
from helpers import small_backbones

from simsiam_tf import methods, optimizers
from simsiam_tf.command_line import cli
from simsiam_tf.config import PretrainConfig
from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import build_run, pretraining


def parse(*argv):
    return cli.parse(PretrainConfig, ["--data=digits", *argv])


@pytest.mark.parametrize(
    ("argv", "encoder", "predictor"),
    [
        ([], (0.1, 0.05), (0.1, 0.05)),
        (["--predictor_lr=constant"], (0.1, 0.05), (0.1, 0.1)),
        (["--predictor_lr_factor=3"], (0.1, 0.05), (0.3, 0.15)),
        (["--predictor_lr=constant", "--predictor_lr_factor=3"], (0.1, 0.05), (0.3, 0.3)),
        (["--warmup_epochs=5", "--epochs=15"], (0.0, 0.05), (0.0, 0.05)),
    ],
)
def test_rates_at_the_first_and_the_middle_step(argv, encoder, predictor):
    """lr 0.05 × 512/256 on a cosine over ten steps: half of it is left at the fifth."""
    steps = 15 if "--warmup_epochs=5" in argv else 10
    sgd = build_run.build_optimizer(parse(*argv), total_steps=steps, size=512)
    middle = steps - 5
    h = sgd.part_learning_rates.get("predictor", sgd._learning_rate)
    for rate, expected in ((sgd._learning_rate, encoder), (h, predictor)):
        assert [float(rate(s)) for s in (0, middle)] == pytest.approx(expected, abs=1e-6)


def test_the_augmentation_takes_the_flags():
    argv = ["--jitter=0.8", "--crop_area=0.6", "--blur_p=0.25", "--flip_p=0", "--image_size=12"]
    source, views = build_run.open_data(parse(*argv, "--batch_size=64"))
    augmentation = views.augmentation
    assert augmentation.jitter == (0.8, 0.8, 0.8, 0.2) and augmentation.area == (0.6, 1.0)
    assert (augmentation.blur_p, augmentation.flip_p, augmentation.size) == (0.25, 0.0, 12)
    _, views = build_run.open_data(parse("--batch_size=64"))
    assert views.augmentation.jitter == (0.4, 0.4, 0.4, 0.1) and views.augmentation.size == 8


SMALL = ("--backbone=resnet10", "--width=0.125", "--d=8")


@pytest.mark.parametrize(
    ("argv", "kind", "has"),
    [
        ([], methods.SimSiam, {"predictor": True}),
        (["--alternate=5"], methods.Alternation, {"k": 5}),
        (["--alternate=epoch", "--epochs=3"], methods.Alternation, {"k": 10}),
        (["--average=0.7", "--predictor=none"], methods.MovingAverage, {"m": 0.7, "predictor": False}),
        (["--method=simclr", "--temperature=0.3"], methods.SimCLR, {"predictor": False, "temperature": 0.3}),
        (["--method=simclr", "--predictor=trained"], methods.SimCLR, {"predictor": True, "temperature": 0.1}),
        (["--method=moco", "--queue=48"], methods.MoCo, {"target_momentum": 0.999, "temperature": 0.2}),
        (["--method=byol"], methods.BYOL, {"predictor": True}),
        (
            ["--method=swav", "--prototypes=7", "--sinkhorn_epsilon=0.2"],
            methods.SwAV,
            {"sinkhorn_epsilon": 0.2},
        ),
        (["--method=vicreg", "--variance_weight=3"], methods.VICReg, {"term_weights": (25, 3, 1)}),
        (["--method=barlow"], methods.BarlowTwins, {"redundancy_weight": 5e-3, "loss_factor": 0.024}),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_the_method_and_its_flags_make_the_model(argv, kind, has):
    config = parse("--backbone=resnet10", "--width=0.125", "--d=16", "--projector_layers=2", *argv)
    model = build_run.build_model(config, channels=1, size=8, steps=30, images=77)
    assert type(model) is kind and model.d == 16
    for name, value in has.items():
        found = getattr(model, name)
        assert (found is not None) == value if name == "predictor" else found == value
    if kind is methods.MoCo:
        assert model.queue.shape == (48, 16) and model.encoder.groups is None
    if kind is methods.MovingAverage:
        assert (model.averages.images, model.averages.d) == (77, 16)
    if kind is methods.BYOL:
        assert (float(model.m(0)), float(model.m(30))) == (pytest.approx(0.996), 1.0)
    if kind is methods.SwAV:
        assert model.prototypes.kernel.shape == (16, 7)


@pytest.mark.parametrize(
    ("method", "stops"), [("simsiam", True), ("simclr", False), ("swav", True)], ids=lambda v: str(v)
)
def test_the_gradient_stops_where_the_method_has_it(method, stops):
    asked = [
        parse(*SMALL, f"--method={method}"),
        parse(*SMALL, f"--method={method}", f"--stop_gradient={str(not stops).lower()}"),
    ]
    found = [build_run.build_model(c, channels=1, size=8).stop is methods.STOP[True] for c in asked]
    assert found == [stops, not stops]


@pytest.mark.parametrize(
    ("method", "excludes", "slope"),
    [
        ("simclr", True, True),
        ("byol", True, True),
        ("swav", False, False),
        ("simsiam", True, False),
        ("barlow", True, True),
    ],
)
def test_lars_is_that_of_the_methods_own_code(method, excludes, slope):
    lars = build_run.build_optimizer(parse(f"--method={method}", "--optimizer=lars"), 100, 640)
    assert type(lars) is optimizers.LARS and (lars.exclude_1d, lars.decayed_slope) == (excludes, slope)


def test_rates_can_change_once_an_epoch_and_end_above_zero():
    argv = ["--epochs=10", "--batch_size=256", "--base_lr=0.5", "--predictor_lr_factor=2"]
    argv += ["--lr_update=epoch", "--final_lr=0.1"]
    sgd = build_run.build_optimizer(parse(*argv), total_steps=40, size=1024)
    for rate, factor in ((sgd._learning_rate, 1), (sgd.part_learning_rates["predictor"], 2)):
        found = [float(rate(step)) for step in range(41)]
        # As adjust_learning_rate of the official code, with the epoch's number.
        expected = [0.1 + 0.4 * 0.5 * (1 + math.cos(math.pi * (step // 4) / 10)) for step in range(41)]
        np.testing.assert_allclose(found, factor * np.array(expected), rtol=1e-5)
    warm = build_run.build_optimizer(parse(*argv, "--warmup_epochs=1"), total_steps=40, size=1024)
    np.testing.assert_allclose([float(warm._learning_rate(s)) for s in range(4)], [0, 0.125, 0.25, 0.375])
    plain = build_run.build_optimizer(parse(*argv[:-2]), total_steps=40, size=1024)._learning_rate
    assert float(plain(1)) < float(plain(0)) and float(plain(40)) == 0


def test_the_hidden_width_of_the_projector_does_not_follow_d():
    """App. B: the hidden layer stays as wide as the features while d varies."""
    for d in (8, 16):
        model = build_run.build_model(parse(*SMALL, f"--d={d}"), channels=1, size=8)
        widths = [v.shape for v in model.projector.trainable_variables if len(v.shape) == 2]
        features = model.backbone.output_shape[-1]
        assert widths[0] == (features, features) and widths[-1] == (features, d)
        assert [v.shape for v in model.predictor.trainable_variables if len(v.shape) == 2][0] == (d, d // 4)


def test_prototypes_wait():
    argv = ["--method=swav", "--optimizer=lars", "--weight_decay=1e-6", "--frozen_prototypes=2"]
    lars = build_run.build_optimizer(parse(*argv, "--batch_size=128"), total_steps=100, size=640)
    assert lars.l2 == 1e-6
    rate = lars.part_learning_rates["prototypes"]
    assert [float(rate(s)) for s in (0, 9)] == [0, 0]
    assert float(rate(10)) == pytest.approx(float(lars._learning_rate(10)))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(lars))
    assert float(again.part_learning_rates["prototypes"](10)) == float(rate(10)) and float(rate(10)) > 0


@pytest.mark.parametrize(("key_groups", "groups"), [(1, None), (2, 1), (8, 4), (3, "Try key_groups=2.")])
def test_key_groups_are_dealt_out_to_replicas(key_groups, groups, two_replicas):
    config = parse("--method=moco", "--queue=48", "--batch_size=48", f"--key_groups={key_groups}", *SMALL)
    with two_replicas.scope():
        if isinstance(groups, str):
            with pytest.raises(UserError, match=groups):
                build_run.build_model(config, channels=1, size=8)
        else:
            assert build_run.build_model(config, channels=1, size=8).encoder.groups == groups


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--key_groups=2"], "key_groups=2 has no effect with a `method` other than moco"),
        (
            ["--method=moco", "--key_groups=8", "--batch_size=60"],
            "key_groups=8: a batch of 60 cannot be cut into as many",
        ),
        (
            ["--method=moco", "--key_groups=8", "--batch_size=8"],
            "equal parts of two images or more. Choose another",
        ),
        (["--queue=9"], "queue=9 has no effect with a `method` other than moco"),
        (["--method=moco", "--predictor=trained"], "a `method` other than simsiam and simclr and swav"),
        (["--method=simclr", "--predictor_lr=constant"], "a predictor that is not trained"),
        (["--method=simclr", "--predictor=fixed"], "predictor=fixed: is for simsiam alone"),
        (["--method=byol", "--temperature=0.1"], "temperature=0.1 has no effect"),
        (["--alternate=2", "--average=0.8"], "two readings of Sec. 5"),
        (["--alternate=0"], "alternate=0: must be a number of steps, or epoch"),
        (["--method=byol", "--alternate=3"], "a `method` other than simsiam"),
        (["--method=swa"], "Did you mean swav"),
    ],
)
def test_flags_that_the_method_does_not_have_are_errors(argv, expected):
    with pytest.raises(UserError, match=expected):
        parse(*argv)


@pytest.mark.parametrize(
    ("flag", "copy"),
    [
        ("--method=byol", "target"),
        pytest.param("--method=moco", "encoder", marks=pytest.mark.slow),
        pytest.param("--alternate=2", "assigned", marks=pytest.mark.slow),
    ],
)
def test_copies_of_the_backbone_begin_with_the_weights_it_is_given(tmp_path, flag, copy):
    folder = small_backbones.exported(tmp_path, AUGMENTATIONS["grayscale"], channels=1, seed=5)
    given = backbone_file.load_backbone(str(folder)).get_weights()
    argv = ["--backbone=resnet10", "--stem=small", "--width=0.125", "--d=16", f"--weights={folder}", flag]
    model = build_run.build_model(parse(*argv), channels=1, size=8)
    for network in (model.backbone, getattr(model, copy).backbone):
        for found, expected in zip(network.get_weights(), given, strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("epochs", "late"), [("102", True), ("200", False)])
def test_a_start_with_hardly_any_learning_rate_left_is_said(epochs, late):
    argv = ["--data=digits", "--weights=runs/a", "--start_epoch=100", f"--epochs={epochs}", "--batch_size=64"]
    config = cli.parse(PretrainConfig, [*argv, "--lr_update=epoch"])
    optimizer = build_run.build_optimizer(config, 10 * int(epochs), 640)
    components = types.SimpleNamespace(model=types.SimpleNamespace(optimizer=optimizer), first_step=1000)
    text = pretraining.late_start(config, components)  # pyright: ignore[reportArgumentType]
    assert bool(text) == late
    if late:
        share = 0.5 * (1 + math.cos(math.pi * 100 / 102))
        assert f"start_epoch=100 of epochs=102: the learning rate begins at {share * 0.05 / 4:.2g}" in text
        assert "Pass more epochs" in text


@pytest.mark.parametrize(
    "flags", [("--warmup_epochs=0.8",), ("--warmup_epochs=0.8", "--predictor_lr_factor=10")]
)
def test_a_warm_up_of_all_steps_is_refused(flags):
    config = parse("--batch_size=512", "--epochs=1", *flags)
    with pytest.raises(UserError, match="warmup_epochs=0.8: is 2 steps of 2 steps in all. Pass less"):
        build_run.build_optimizer(config, total_steps=2, size=1437)


def test_epochs_without_end_are_refused():
    with pytest.raises(UserError, match="epochs=inf: must be above 0, and finite"):
        parse("--epochs=inf")
