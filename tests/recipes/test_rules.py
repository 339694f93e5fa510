"""recipe=auto: what it chooses, what it leaves, and that a run keeps what it chose."""

import dataclasses

import pytest
from helpers.runs import StopAt, state
from PIL import Image

from simsiam_tf import pretrain
from simsiam_tf.command_line import cli
from simsiam_tf.config import METHODS, PretrainConfig
from simsiam_tf.data import open_source
from simsiam_tf.nets import Description
from simsiam_tf.recipes import rules
from simsiam_tf.recipes.rules import Facts, choose
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import pretraining, run_data

EMOJI = Facts(images=15_000, side=64, channels=3, accelerator=False)


def chosen(facts=EMOJI, **options):
    config, choices = choose(PretrainConfig(recipe="auto", **options), facts)
    assert config.validate().recipe == "none" and all(choice.reason for choice in choices)
    assert {choice.option for choice in choices} <= set(rules.RULED_OPTIONS)
    return config


def test_small_pictures_on_a_cpu():
    config = chosen()
    assert (config.method, config.backbone, config.width, config.stem) == ("simclr", "resnet10", 0.5, "small")
    assert (config.image_size, config.batch_size, config.minutes) == (32, 256, 30)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"side": 28}, {"image_size": 28}),
        ({"side": 500}, {"image_size": 32, "backbone": "resnet10"}),
        ({"side": None}, {"image_size": 32}),
        ({"side": 500, "accelerator": True}, {"image_size": 128, "backbone": "resnet18", "stem": "auto"}),
        ({"decoded_each_epoch": True}, {"decoded_size": 64}),
        ({"decoded_each_epoch": True, "images": 10**6}, {"decoded_size": None}),
        ({"side": 500, "decoded_each_epoch": True}, {"decoded_size": 64}),
        (
            {"side": 500, "decoded_each_epoch": True, "accelerator": True, "images": 900},
            {"decoded_size": 256},
        ),
        ({"channels": 5}, {"augmentation": "multichannel", "crop_area": 0.2, "jitter": None}),
        ({"channels": 1}, {"augmentation": "imagenet", "jitter": 0.4}),
        ({"images": 785}, {"batch_size": 64}),
        ({"images": 100}, {"batch_size": 16}),
        ({"images": 12}, {"batch_size": 8}),
    ],
)
def test_facts_change_the_choice(facts, expected):
    config = chosen(dataclasses.replace(EMOJI, **facts))
    assert {name: getattr(config, name) for name in expected} == expected


def test_options_that_are_given_stay():
    config = chosen(d=64, epochs=7, jitter=0.1)
    assert (config.d, config.epochs, config.jitter, config.minutes) == (64, 7, 0.1, None)
    assert (chosen(minutes=3).minutes, chosen(minutes=3).knn_images, chosen().knn_images) == (3, 3000, 12000)
    assert chosen(minutes=3, monitor="none").knn_images == 12000
    # A value that is the default stays where it is named, or typed.
    assert chosen(given="width,method").width == 1.0
    argv = ["--recipe=auto", "--method=simsiam", "--width=1.0", "--data=digits"]
    config, choices = choose(cli.parse(PretrainConfig, argv), EMOJI)
    assert (config.method, config.width, config.predictor_lr_factor) == ("simsiam", 1.0, 10)
    assert "method" not in {choice.option for choice in choices}


def test_options_of_a_method_that_is_still_to_be_chosen_can_be_given():
    argv = ["--recipe=auto", "--data=digits", "--temperature=0.5", "--local_views=2"]
    config, choices = choose(cli.parse(PretrainConfig, argv), EMOJI)
    assert (config.method, config.temperature, config.local_views) == ("simclr", 0.5, 2)
    assert "temperature" not in {choice.option for choice in choices}
    with pytest.raises(UserError, match="temperature=0.5 has no effect with a `method` other than"):
        cli.parse(PretrainConfig, [*argv, "--method=simsiam"])


@pytest.mark.parametrize("method", [m for m in METHODS if m != "distill"])
def test_any_method_can_be_given(method):
    assert chosen(given="method" if method == "simsiam" else "", method=method).method == method


@pytest.mark.parametrize(
    ("facts", "size"),
    [
        ({}, 64),
        ({"side": 500}, 64),
        ({"side": 28}, 32),
        ({"network": Description(fixed_size=True)}, None),
        ({"network": Description(smallest=75)}, 75),
        ({"network": Description(smallest=75), "side": 28}, 75),
        ({"accelerator": True}, None),
    ],
)
def test_networks_of_others_get_views_that_a_cpu_can_train(facts, size):
    network = "keras:EfficientNetV2B0+imagenet"
    config = chosen(dataclasses.replace(EMOJI, **facts), backbone=network, minutes=30)
    assert (config.backbone, config.image_size, config.width, config.stem) == (network, size, 1.0, "auto")


@pytest.mark.parametrize(
    ("facts", "size"),
    [
        ({}, 128), ({"side": 500}, 224), ({"network": Description(fixed_size=True)}, None),
        ({"side": 500, "accelerator": True}, 224), ({"network": Description(smallest=139)}, 139),
    ],
)  # fmt: skip
def test_published_weights_read_larger_images(facts, size):
    facts, network = dataclasses.replace(EMOJI, **facts), "keras:EfficientNetV2B0+imagenet"
    assert chosen(facts, backbone=network, minutes=30).read_size == size
    assert chosen(facts, backbone=network, minutes=30, finish="none").read_size is None
    assert chosen(facts, backbone="keras:EfficientNetV2B0").read_size is None
    untrained = chosen(facts, backbone=network, epochs=0)
    assert (untrained.image_size, untrained.read_size, untrained.method) == (size, None, "simsiam")


def test_published_weights_are_trained_on_a_cpu_only_where_time_is_given():
    name = "keras:EfficientNetV2B0+imagenet"
    config = chosen(backbone=name)
    assert (config.epochs, config.minutes, config.final_images) == (0, None, 12_000)
    assert chosen(backbone=name, minutes=3).minutes == 3 and chosen(backbone=name, epochs=7).epochs == 7
    assert chosen(dataclasses.replace(EMOJI, accelerator=True), backbone=name).minutes == 30
    assert chosen(weights="run").minutes == 30, "weights of a run are trained on"


def test_the_least_side_that_a_network_takes_is_a_fact(monkeypatch):
    seen = []
    monkeypatch.setattr(rules, "choose", lambda config, facts: (seen.append(facts), (config, []))[1])
    for backbone in ("keras:MobileNetV3Small", "keras:InceptionV3"):
        run_data.follow_recipe(PretrainConfig(recipe="auto", data="digits", backbone=backbone))
    assert [facts.network.smallest for facts in seen] == [32, 75]


@pytest.mark.parametrize(
    ("sizes", "each_epoch"),
    [
        ([(40, 40)] * 2, False),
        ([(40, 40), (50, 50)], True),
        ([(200, 90)] * 2, True),
        ([(90, 200)] * 2, True),
    ],
)
def test_images_that_differ_in_size_or_are_large_would_be_decoded_every_epoch(tmp_path, sizes, each_epoch):
    for i, size in enumerate(sizes):
        Image.new("RGB", size, (i, 0, 0)).save(tmp_path / f"{i}.png")
    assert rules.read_facts(open_source(f"folder:{tmp_path}"), False).decoded_each_epoch == each_epoch


def test_facts_are_those_of_the_images(tmp_path):
    assert rules.read_facts(open_source("digits"), False) == Facts(1437, 8, 1, False)
    assert "1,437 gray images, 8 pixels; CPU" in str(Facts(1437, 8, 1, False))


RUN = [
    "--recipe=auto", "--data=digits", "--epochs=2", "--width=0.125", "--precision=float32",
    "--strategy=one_device", "--monitor=none", "--save_minutes=0",
]  # fmt: skip


def run(workdir):
    return cli.parse(PretrainConfig, [*RUN, f"--workdir={workdir}"])


@pytest.mark.slow
def test_a_run_keeps_what_it_chose(tmp_path, capsys, monkeypatch):
    pretraining.pretrain(run(tmp_path / "whole"))
    choices = "recipe for 1,437 gray images, 8 pixels; CPU cores:\n  --backbone=resnet10 "
    assert choices in (tmp_path / "whole" / "train.log").read_text() and choices in capsys.readouterr().err
    flags = (tmp_path / "whole" / "config.flags").read_text().splitlines()
    assert {"--method=simclr", "--image_size=8", "--batch_size=128", "--width=0.125"} <= set(flags)
    assert "--recipe=auto" not in flags
    pretraining.pretrain(run(tmp_path / "cut"), callbacks=[StopAt(5)])
    monkeypatch.setattr(rules, "METHOD", rules.Choice("method", "byol", "of a later version"))
    outcome = pretraining.pretrain(run(tmp_path / "cut"))
    assert outcome.status == pretraining.DONE
    assert state(tmp_path / "cut") == state(tmp_path / "whole")


@pytest.mark.slow
def test_the_summary_is_of_what_was_chosen(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert pretrain.main([*RUN, "--epochs=0.5"]) == 0
    said = capsys.readouterr().out
    assert "SimCLR on digits: done" in said and "least possible 0)" in said and "(at most 127)" in said
    assert (tmp_path / "runs" / "digits-auto" / "export" / "backbone.keras").exists()
