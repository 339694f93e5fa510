"""Runs with AdamW, rates by layer, frozen layers and dropout: options, exact resume, errors."""

import json
import sys

import keras
import pytest
import tensorflow as tf
from helpers import random_networks
from helpers.runs import StopAt, state, tiny

from simsiam_tf import finetune, optimizers, pretrain
from simsiam_tf.command_line import cli
from simsiam_tf.config import FinetuneConfig
from simsiam_tf.config.backbones import BACKBONES, Backbone
from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.loop.outcome import DONE
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime.signals import INTERRUPTED
from simsiam_tf.training import build_run, pretraining, supervised

ALL = [
    "--optimizer=adamw", "--base_lr=0.004", "--weight_decay=0.05", "--adam_beta2=0.99", "--layer_decay=0.5",
    "--backbone_lr_factor=0.5", "--freeze_until=block1",
]  # fmt: skip
SHORT = ["--batch_size=64", "--epochs=1", "--log_every=5", "--precision=float32", "--strategy=one_device"]


@pytest.fixture
def noisy(monkeypatch):
    monkeypatch.setitem(BACKBONES, "noisy", Backbone("helpers.random_networks:build_network"))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A work folder with an exported backbone that has dropout."""
    folder = tmp_path_factory.mktemp("backbone")
    card = {"step": 1, "views": vars(AUGMENTATIONS["grayscale"]), "configuration": {"data": "digits"}}
    keras.utils.set_random_seed(0)
    backbone_file.export_network(random_networks.build_network(8, 1, noise=False), folder, card)
    return folder


@pytest.mark.slow
def test_pretraining_with_dropout_resumes_to_the_bit(noisy, tmp_path):
    ends = {}
    for name, stop in (("whole", 99), ("cut", 9), ("cut", 99)):
        config = tiny(tmp_path / name, "--backbone=noisy", "--monitor=none", *ALL)
        ends[name, stop] = pretraining.pretrain(config, callbacks=[StopAt(stop)]).status
    assert [*ends.values()] == [DONE, INTERRUPTED, DONE]
    assert state(tmp_path / "cut") == state(tmp_path / "whole")
    record = json.loads((tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()[0])
    assert record["lr_backbone"] == pytest.approx(record["lr"] / 2)
    flags = (tmp_path / "cut" / "config.flags").read_text().splitlines()
    assert {*ALL} <= {*flags}


@pytest.mark.slow
def test_fine_tuning_with_dropout_resumes_to_the_bit(source, tmp_path):
    for name, stop in (("whole", 99), ("cut", 9), ("cut", 99)):
        argv = [f"--weights={source}", f"--workdir={tmp_path / name}", "--eval_every=0", *SHORT, *ALL]
        outcome = supervised.run_supervised(cli.parse(FinetuneConfig, argv), callbacks=[StopAt(stop)])
    assert outcome.status == DONE and state(tmp_path / "cut") == state(tmp_path / "whole")
    before, after = (
        {"/".join(v.path.split("/")[-2:]): v.numpy() for v in backbone_file.load_backbone(w).weights}
        for w in (source, tmp_path / "cut")
    )
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed == {name for name in before if "block2" in name} and len(changed) == 5


def test_options_reach_the_optimizer(noisy, tmp_path):
    components = build_run.build_pretraining(tiny(tmp_path, "--backbone=noisy", *ALL))
    adamw, model = components.model.optimizer, components.model
    assert type(adamw) is optimizers.AdamW and (adamw.momentum, adamw.beta_2) == (0.9, 0.99)
    assert adamw.decoupled_decay == 0.05 and model.draw_seed == 0
    rates = adamw.learning_rates(0)
    assert rates == {"lr": pytest.approx(0.001), "lr_backbone": pytest.approx(0.0005)}
    factors = dict(zip((v.path for v in model.learned_variables()), adamw.factors, strict=True))
    assert factors.pop("block2_conv/kernel") == 0.5 and set(factors.values()) == {0.5, 1.0}
    assert not [path for path in factors if "block1" in path]


def test_options_of_fine_tuning_reach_the_optimizer(source, tmp_path):
    argv = [f"--weights={source}", f"--workdir={tmp_path}", *SHORT, *ALL, "--seed=3"]
    config = cli.parse(FinetuneConfig, argv)
    components, _, _ = supervised.build_supervised(config, Workers(tf.distribute.get_strategy()))
    adamw, model = components.model.optimizer, components.model
    assert type(adamw) is optimizers.AdamW and model.draw_seed == 3
    rates = adamw.learning_rates(0)
    assert [rates[n] / rates["lr"] for n in ("lr_head", "lr_backbone")] == pytest.approx([10, 0.5])
    assert sorted(adamw.factors) == [0.5, 0.5, 0.5, 1.0, 1.0]
    assert len(model.backbone.trainable_variables) == 3


def test_by_default_fine_tuning_is_sgd_as_before(source, tmp_path):
    config = cli.parse(FinetuneConfig, [f"--weights={source}", f"--workdir={tmp_path}", *SHORT])
    sgd = supervised.build_optimizer(config, 100, 1437)
    assert type(sgd) is optimizers.SGD and [*sgd.part_learning_rates] == ["head"] and sgd.layer_decay == 1


@pytest.mark.slow
def test_the_dry_run_counts_trained_parameters(noisy, tmp_path, capsys):
    argv = ["--data=digits", "--backbone=noisy", "--dry_run", "--batch_size=64", "--precision=float32"]
    argv += ["--strategy=one_device", "--monitor=none", f"--workdir={tmp_path}"]
    assert pretrain.main([*argv, "--freeze_until=block1"]) == 0
    kernels = 9 * 1 * 6 + 4 * 6, 9 * 6 * 16 + 4 * 16
    assert f"{sum(kernels):,} parameters" in (out := capsys.readouterr().out)
    assert f"; {9 * 6 * 16 + 2 * 16:,} of the backbone's are trained" in out


@pytest.mark.parametrize(
    ("command", "flags", "said"),
    [
        (pretrain, ["--optimizer=adamw"], "--base_lr=0.05: is too high for --optimizer=adamw"),
        (
            pretrain,
            ["--adam_beta2=0.9"],
            "--adam_beta2=0.9 has no effect with another --optimizer",
        ),
        (pretrain, ["--layer_decay=1.5"], "--layer_decay=1.5: must be from 0.01 to 1"),
        (pretrain, ["--optimizer=adamw", "--base_lr=0.001", "--start_epoch=2", "--weights={}"], "no moments"),
        (finetune, ["--weights={}", "--freeze_until=blok2"], "Did you mean block2?"),
        (finetune, ["--weights={}", "--freeze_until=pool"], "linear_eval trains a classifier"),
        (finetune, ["--weights={}", "--optimizer=lars"], "--optimizer=lars: no such value"),
        (finetune, ["--weights={}", "--optimizer=adamw"], "--base_lr=0.02: is too high"),
    ],
)
def test_bad_input_gets_one_line(command, flags, said, source, tmp_path, capsys):
    argv = [flag.format(source) for flag in flags]
    assert command.main([*argv, f"--workdir={tmp_path / 'run'}"]) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.strip().splitlines()) == 1


def test_a_network_without_blocks_is_named_before_the_images_are_read(tmp_path, capsys):
    folder = tmp_path / "plain"
    folder.mkdir()
    images = keras.Input((None, None, 1))
    plain = keras.Model(images, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(images)))
    card = {"step": 1, "views": vars(AUGMENTATIONS["grayscale"]), "configuration": {"data": "digits"}}
    backbone_file.export_network(plain, folder, card)
    argv = [f"--weights={folder}", "--layer_decay=0.5", f"--data=folder:{tmp_path}", *SHORT]
    assert finetune.main([*argv, f"--workdir={tmp_path / 'run'}"]) == 2
    assert "has no blocks by the names of its layers" in capsys.readouterr().err


def test_layers_are_looked_for_before_images_are_opened(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("simsiam_tf.training.run_data.open_source", None)  # would be a TypeError
    (tmp_path / "no_network.py").write_text("def net(size, channels):\n    return None\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    argv = ["--data=digits", *SHORT, f"--workdir={tmp_path / 'run'}"]
    for more, said in (
        ("--freeze_until=stag2", "no layer of backbone has a name that starts so"),
        ("--backbone=py:no_network:net", "gives NoneType, not a Keras model"),
    ):
        assert pretrain.main([*argv, more]) == 2
        assert said in capsys.readouterr().err
