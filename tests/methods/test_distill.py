"""Distillation: the teacher stays as it is and out of checkpoints; runs learn its features and resume."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.compared_methods import compiled_model, views
from helpers.runs import TINY, StopAt, state
from helpers.small_backbones import exported

from simsiam_tf import nets, open_pretrained, pretrain
from simsiam_tf.command_line import cli
from simsiam_tf.config import PretrainConfig
from simsiam_tf.data import AUGMENTATIONS, Views
from simsiam_tf.methods import Distill
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.pretrained.teacher import network_on_views, open_teacher
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import inspection, pretraining

GRAY = dataclasses.replace(AUGMENTATIONS["grayscale"], size=8)
FLAGS = [f for f in TINY if not f.startswith(("--d=", "--predictor_hidden"))] + ["--method=distill"]


def test_the_teacher_gets_no_gradient_and_does_not_change():
    model = compiled_model("distill")
    before = [v.numpy() for v in model.teacher.weights]
    with tf.GradientTape() as tape:
        tape.watch([v.value for v in model.teacher.weights])
        loss = model.objective({"views": views()})["loss"]
    assert all(g is None for g in tape.gradient(loss, [v.value for v in model.teacher.weights]))
    for seed in range(3):
        model.step(views(seed))
    for old, v in zip(before, model.teacher.weights, strict=True):
        np.testing.assert_array_equal(v.numpy(), old)


def test_the_teacher_computes_in_inference_mode():
    images = keras.Input((8, 8, 1))
    x = keras.layers.GlobalAveragePooling2D()(nets.BatchNorm()(nets.Conv(6, 3)(images)))
    teacher = keras.Model(images, keras.layers.Dropout(0.9)(x))
    model = Distill(compiled_model("distill").backbone, teacher)
    before = [v.numpy() for v in teacher.weights]
    t1, t2 = (model.t(views()[0]).numpy() for _ in range(2))
    np.testing.assert_array_equal(t1, t2)
    for old, v in zip(before, teacher.weights, strict=True):
        np.testing.assert_array_equal(v.numpy(), old)


def test_the_teacher_is_no_part_of_a_checkpoint(tmp_path):
    model = compiled_model("distill")
    held = {id(v) for v in (*model.variables, *model.weights)}
    assert not held & {id(v) for v in model.teacher.weights}
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "state"))
    stored = sum(np.prod(s) for _, s in tf.train.list_variables(path) if s)
    students = {id(v): v for v in (*model.variables, *model.optimizer.variables)}.values()
    assert stored <= sum(np.prod(v.shape) for v in students if v.shape)
    names = " ".join(name for name, _ in tf.train.list_variables(path))
    assert "teacher" not in names and "backbone" in names


def test_a_constant_prediction_is_worth_nothing():
    """Since the teacher's features are centred: their mean, which is most of them, is no help."""
    model = compiled_model("distill")
    constant = tf.ones([8, 6])
    model.f = lambda x: constant
    raw = model.teacher(views()[0]).numpy()
    mean = raw.mean(0) / np.linalg.norm(raw.mean(0))
    assert np.mean(raw @ mean / np.linalg.norm(raw, axis=1)) > 0.9
    assert float(model.objective({"views": views()})["loss"]) == pytest.approx(2, abs=0.3)


# From views to the teacher's features


def photographs(channels):
    return np.random.default_rng(0).integers(0, 256, (4, 8, 8, channels), np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_normalised_anew_for_the_teacher(channels, tmp_path):
    theirs = dataclasses.replace(AUGMENTATIONS["imagenet"], size=8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    teacher = open_teacher(str(exported(tmp_path, theirs, 3)))
    ours = GRAY if channels == 1 else dataclasses.replace(AUGMENTATIONS["cifar"], size=8)
    images = photographs(channels)
    network = network_on_views(teacher, ours, channels)
    found = network(Views(ours, 1).normalise(tf.constant(images))).numpy()
    colours = np.repeat(images, 3 // channels, axis=-1)
    expected = teacher.backbone((colours / 255.0 - theirs.mean) / theirs.std).numpy()
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_views_are_resized_for_the_teacher(tmp_path):
    teacher = open_teacher(str(exported(tmp_path, GRAY, 1)))
    views = tf.constant(photographs(1), tf.float32)
    found = network_on_views(teacher, GRAY, 1, size=16)(views)
    larger = tf.image.resize(views, (16, 16), antialias=True)
    expected = teacher.backbone(larger).numpy()
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.abs(network_on_views(teacher, GRAY, 1)(views) - expected).max() > 1e-3 * np.abs(expected).max()


def test_a_teacher_of_one_size_gets_it(tmp_path):
    network = keras.Sequential([keras.Input((12, 12, 1)), keras.layers.Flatten(), keras.layers.Dense(5)])
    network.save(tmp_path / "net.keras")
    with pytest.raises(
        UserError, match=r"teacher=.*net.keras: no card .* Pass teacher_pixels=torch \(mean 0"
    ):
        open_teacher(str(tmp_path / "net.keras"))
    teacher = open_teacher(str(tmp_path / "net.keras"), "unit")
    assert network_on_views(teacher, GRAY, 1).layers[1].output.shape[1] == 12
    with pytest.raises(UserError, match=r"teacher_size=16: .* takes images of 12 pixels"):
        network_on_views(teacher, GRAY, 1, 16)
    with pytest.raises(UserError, match=r"teacher=.*: takes 1 channel, and the images have 3"):
        network_on_views(teacher, AUGMENTATIONS["cifar"], 3)


# Runs


@pytest.fixture(scope="module")
def small_teacher(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("teacher"), GRAY, 1, settled=True)


@pytest.mark.slow
def test_a_run_learns_the_teachers_features_and_exports_the_student(small_teacher, tmp_path, capsys):
    flags = [*FLAGS, f"--teacher={small_teacher}", f"--workdir={tmp_path}", "--epochs=3"]
    assert pretrain.main(flags) == 0
    text = capsys.readouterr().out
    assert text.strip().startswith("Distillation on digits: done") and "(at most 63)" in text
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [r["loss"] for r in records if "loss" in r]
    assert losses[-1] < 0.8 * losses[0] and "healthy" in text
    assert f"--teacher={small_teacher}\n" in (tmp_path / "config.flags").read_text()
    metadata = json.loads((tmp_path / "config.json").read_text())["metadata"]
    digest = backbone_file.sha256(backbone_file.backbone_path(small_teacher))
    assert metadata["teacher"] == digest
    student = open_pretrained(tmp_path)
    assert student.features == 64 and student.backbone.count_params() < 200_000
    accuracy = student.card["accuracy"]
    assert accuracy["backbone"]["knn20"] > accuracy["untrained backbone"]["knn20"]
    assert not any("teacher" in p.name for p in (tmp_path / "export").iterdir())


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_bits(small_teacher, tmp_path):
    for name, stop in (("whole", 99), ("cut", 12), ("cut", 99)):
        argv = [*FLAGS, "--monitor=none", f"--teacher={small_teacher}", f"--workdir={tmp_path / name}"]
        pretraining.pretrain(cli.parse(PretrainConfig, argv), callbacks=[StopAt(stop)])
    assert state(tmp_path / "cut") == state(tmp_path / "whole")
    other = exported(tmp_path / "other", GRAY, 1, seed=1)
    argv = [*FLAGS, "--monitor=none", f"--teacher={other}", f"--workdir={tmp_path / 'cut'}"]
    with pytest.raises(UserError, match="teacher was .*, is "):
        pretraining.pretrain(cli.parse(PretrainConfig, argv))


@pytest.mark.slow
def test_a_dry_run_describes_the_teacher(small_teacher, capsys):
    config = cli.parse(PretrainConfig, [*FLAGS, f"--teacher={small_teacher}"])
    assert inspection.dry_run(config) == 0
    lines = dict(line.partition(" ")[::2] for line in capsys.readouterr().out.splitlines())
    assert "64 features" in lines["teacher"]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], "--teacher: missing, and --method=distill learns its features. Pass a work folder"),
        (["--teacher=nowhere"], "simsiam_tf.pretrain: --teacher="),
        (["--teacher=keras:MobileNetV2"], "Pass --teacher=keras:MobileNetV2+imagenet"),
        (["--teacher=net.pth"], "/net.pth is a pickle, which can run code"),
        (["--teacher=a", "--d=64"], "--d=64 has no effect with --method=distill"),
        (["--teacher=a", "--method=simclr"], "--teacher=a has no effect with a --method other than distill"),
    ],
)
def test_what_cannot_be_a_teacher_is_said_before_any_work(argv, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.pth").write_bytes(b"PK")
    assert pretrain.main([*FLAGS, *argv]) == 2
    assert line in capsys.readouterr().err


def test_teachers_are_opened_from_any_folder(small_teacher, tmp_path, monkeypatch):
    monkeypatch.chdir(small_teacher.parent)
    config = cli.parse(PretrainConfig, [*FLAGS, f"--teacher={small_teacher.name}"]).absolute()
    assert config.teacher == str(small_teacher)
