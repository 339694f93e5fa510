"""Linear evaluation and fine-tuning: trained and frozen weights, loss, metrics, resume."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import small_backbones
from helpers.runs import StopAt, state

from simsiam_tf import finetune, linear_eval, optimizers
from simsiam_tf.command_line import cli
from simsiam_tf.config import FinetuneConfig, LinearConfig
from simsiam_tf.data import AUGMENTATIONS, Views, open_source
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate import cached_scores
from simsiam_tf.evaluate.supervised_model import train_classifier
from simsiam_tf.loop import compiled_steps
from simsiam_tf.loop.outcome import DONE
from simsiam_tf.optimizers import schedules
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.pretrained.pretrained_backbone import open_pretrained
from simsiam_tf.runtime.signals import INTERRUPTED
from simsiam_tf.training import supervised

ROOT = Path(__file__).parents[2]
SHORT = ["--batch_size=64", "--epochs=1.5", "--log_every=5", "--precision=float32", "--strategy=one_device"]

LINEAR = [*SHORT, "--optimizer=sgd", "--base_lr=2", "--crop_area=0.8", "--flip_p=0"]

WHOLE = ["--epochs=2", "--eval_every=1"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbone")
    return small_backbones.exported(folder, AUGMENTATIONS["grayscale"], channels=1, settled=True)


def linear_config(source, workdir, *more):
    argv = [f"--weights={source}", f"--workdir={workdir}", *LINEAR, *more]
    return cli.parse(LinearConfig, argv)


def finetune_config(source, workdir, *more):
    return cli.parse(FinetuneConfig, [f"--weights={source}", f"--workdir={workdir}", *SHORT, *more])


def weights_of(path):
    model = keras.saving.load_model(path)
    return {"/".join(v.path.split("/")[-2:]): v.numpy() for v in model.weights}


@pytest.fixture(scope="module")
def evaluated(source, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("linear")
    with pytest.MonkeyPatch.context() as patch:  # the end takes the evaluation of the last epoch
        patch.setattr(supervised, "evaluate_model", lambda *args: pytest.fail("evaluated twice"))
        return supervised.run_supervised(linear_config(source, workdir, *WHOLE)), workdir


def test_linear_evaluation_learns_and_writes_its_result(evaluated, source):
    outcome, workdir = evaluated
    assert outcome.status == DONE and outcome.step == 44
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [r for r in records if "loss" in r]
    assert {"loss", "accuracy", "lr"} <= set(losses[0]) and losses[-1]["loss"] < losses[0]["loss"]
    assert [r["step"] for r in records if "top1" in r] == [23, 44, 44]
    result = json.loads((workdir / "result.json").read_text())
    assert result["top1"] == outcome.accuracy["classifier"]["top1"] > 0.25
    assert result["top5"] > result["top1"]
    assert result["weights"]["sha256"] == backbone_file.sha256(source / backbone_file.EXPORTED)
    assert "optimizer" in result["configuration"] and result["images"] == 1437


def test_not_one_weight_of_the_backbone_changes(evaluated, source):
    _, workdir = evaluated
    before = weights_of(source / backbone_file.EXPORTED)
    after = weights_of(workdir / "export" / "classifier.keras")
    assert len(before) > 40 and any("moving_mean" in name for name in before)
    assert set(after) - set(before) == {"head/kernel", "head/bias"}
    assert all((after[name] == value).all() for name, value in before.items())


def test_the_exported_classifier_has_the_recorded_accuracy(evaluated):
    _, workdir = evaluated
    model = keras.saving.load_model(workdir / "export" / "classifier.keras")
    test, views = open_source("digits:test"), Views(AUGMENTATIONS["grayscale"])
    logits = model.predict(views.normalise(views.evaluation_view(tf.constant(test.images))), verbose=0)
    by_hand = np.mean(logits.argmax(axis=1) == test.labels)
    assert json.loads((workdir / "result.json").read_text())["top1"] == pytest.approx(by_hand, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("make", [linear_config, finetune_config])
def test_interrupted_it_ends_bit_identical(make, source, tmp_path):
    ends = [supervised.run_supervised(make(source, tmp_path / "a"), callbacks=[StopAt(n)]) for n in (13, 99)]
    assert [o.status for o in ends] == [INTERRUPTED, DONE]
    supervised.run_supervised(make(source, tmp_path / "b"))
    assert state(tmp_path / "a") == state(tmp_path / "b")


def test_the_default_batch_size_is_at_most_the_number_of_images():
    few = FinetuneConfig().with_batch_size
    assert [few(images).batch_size for images in (24, 54, 256, 9000)] == [16, 32, 256, 256]
    assert few(54, replicas=3).batch_size == 30 and LinearConfig().with_batch_size(9000).batch_size == 4096
    given = FinetuneConfig(batch_size=256)
    assert given.with_batch_size(54) is given


@pytest.mark.slow
def test_a_run_keeps_the_batch_size_that_it_chose_for_few_images(source, tmp_path):
    argv = [f"--weights={source}", *SHORT[1:], "--epochs=3", "--data=digits:train[:54]", "--test=digits:test"]
    make = lambda name: cli.parse(FinetuneConfig, [*argv, f"--workdir={tmp_path / name}"])
    ends = [supervised.run_supervised(make("a"), callbacks=[StopAt(n)]) for n in (2, 99)]
    assert [(o.status, o.step) for o in ends] == [(INTERRUPTED, 2), (DONE, 5)]
    assert "--batch_size=32" in (tmp_path / "a" / "config.flags").read_text()
    supervised.run_supervised(make("b"))
    assert state(tmp_path / "a") == state(tmp_path / "b")
    with pytest.raises(ValueError, match=r"batch_size=256: larger than .* Try batch_size=32\."):
        supervised.run_supervised(dataclasses.replace(make("c"), batch_size=256))


def test_fine_tuning_trains_the_backbone_and_exports_it(source, tmp_path):
    outcome = supervised.run_supervised(finetune_config(source, tmp_path, "--epochs=1", "--labels=0.5"))
    before, after = (weights_of(w / backbone_file.EXPORTED) for w in (source, tmp_path))
    assert all((before[name] != after[name]).any() for name in before)
    record = outcome.records[-1]
    assert record["lr_head"] == pytest.approx(10 * record["lr"])
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["images"] == pytest.approx(1437 / 2, abs=5)
    assert cached_scores.training_data(open_pretrained(tmp_path)) == "digits"


def test_random_initialisation_is_the_same_network_with_other_weights(source, tmp_path):
    parts = {}
    for init in ("weights", "random"):
        config = finetune_config(source, tmp_path, f"--init={init}")
        parts[init] = supervised.build_supervised(config, Workers(tf.distribute.get_strategy()))[
            0
        ].model.backbone
    loaded, drawn = parts["weights"], parts["random"]
    assert [v.shape for v in loaded.weights] == [v.shape for v in drawn.weights]
    kernels = [(a, b) for a, b in zip(loaded.weights, drawn.weights, strict=True) if "kernel" in a.path]
    assert kernels and all((a.numpy() != b.numpy()).any() for a, b in kernels)
    scales = [(a.numpy().std(), b.numpy().std()) for a, b in kernels]
    assert all(0.8 < a / b < 1.25 for a, b in scales)


@pytest.mark.slow
def test_the_same_share_of_labels_for_every_seed(source, tmp_path):
    workers = Workers(tf.distribute.get_strategy())
    sets = [
        supervised.build_supervised(
            finetune_config(source, tmp_path, "--labels=0.2", f"--seed={s}"), workers
        )[0].source
        for s in (0, 1)
    ]
    assert sets[0].fingerprint == sets[1].fingerprint
    whole = np.bincount(open_source("digits:train").labels)
    assert (np.bincount(sets[0].labels) == np.rint(0.2 * whole)).all()


@pytest.mark.slow
def test_two_replicas_agree_with_one(source, tmp_path, two_replicas):
    ends = []
    for name, strategy in (("one", tf.distribute.get_strategy()), ("two", two_replicas)):
        config = finetune_config(source, tmp_path / name, "--augment_on=host")
        parts, _, _ = supervised.build_supervised(config, Workers(strategy))
        steps, batches = (
            compiled_steps.compiled_steps(parts, config),
            compiled_steps.batches(parts, config, 0),
        )
        rows, _ = steps(batches, tf.constant(3))
        ends.append(rows.numpy())
    np.testing.assert_allclose(ends[0][:, 0], ends[1][:, 0], rtol=2e-4)
    np.testing.assert_allclose(ends[0][:, 1], ends[1][:, 1], atol=1e-6)


@pytest.mark.slow
def test_fit_in_a_notebook_takes_the_steps_of_the_command(evaluated, source):
    pretrained = open_pretrained(source)
    digits = [open_source(f"digits:{split}") for split in ("train", "test")]
    augmentation = dataclasses.replace(pretrained.augmentation, area=(0.8, 1.0), flip_p=0.0)
    sgd = optimizers.SGD(schedules.cosine(2 * 64 / 256, 44))
    _, found = train_classifier(pretrained.backbone, *digits, augmentation, 2, 64, sgd, verbose=0)
    assert found == pytest.approx(evaluated[0].accuracy["classifier"], abs=0.01)


@pytest.mark.slow
def test_two_workers_score_what_one_process_does(evaluated, source, tmp_path):
    flags = [flag for flag in [*LINEAR, *WHOLE] if "--strategy" not in flag]
    done = subprocess.run(
        [ROOT / "scripts" / "launch_local.sh", "2", "linear_eval", "--", *flags,
         f"--weights={source}", f"--workdir={tmp_path / 'two'}"],
        env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == DONE, done.stderr
    result = json.loads((tmp_path / "two" / "result.json").read_text())
    assert result["top1"] == pytest.approx(evaluated[0].accuracy["classifier"]["top1"], abs=0.006)


def test_the_optimizer_is_the_one_asked_for(source, tmp_path):
    lars = supervised.build_optimizer(
        linear_config(source, tmp_path, "--optimizer=lars", "--base_lr=0.02", "--batch_size=4096"), 100, 1437
    )
    sgd = supervised.build_optimizer(linear_config(source, tmp_path, "--optimizer=sgd"), 100, 1437)
    assert isinstance(lars, optimizers.LARS) and lars.trust == 0.001
    assert float(lars._learning_rate(0)) == pytest.approx(0.32)  # 0.02 · 4096 / 256
    assert type(sgd) is optimizers.SGD


def test_the_work_folder_is_named_after_what_is_done():
    def named(cls, *argv):
        return str(supervised.workdir_of(cli.parse(cls, ["--weights=some/backbone.keras", *argv])))

    assert named(LinearConfig) == "some/backbone.linear"
    assert named(FinetuneConfig, "--labels=0.01") == "some/backbone.finetune-0.01"
    assert named(FinetuneConfig, "--init=random") == "some/backbone.finetune-random"
    assert named(FinetuneConfig, "--workdir=here") == "here"


@pytest.mark.parametrize(
    ("command", "flags", "said"),
    [
        (linear_eval, [], "--weights: missing"),
        (linear_eval, ["--weights=nowhere"], "no such file"),
        (linear_eval, ["--weights={}", "--labels=0"], "--labels=0.0: must be above 0"),
        (linear_eval, ["--weights={}", "--labels=0.01", "--batch_size=64"], "larger than digits:train, 0.01"),
        (linear_eval, ["--weights={}", "--data=tfds:nothing_of_this_name"], "nothing_of_this_name"),
        (linear_eval, ["--weights={}", "--epochs=0"], "--epochs=0.0: must be above 0"),
        (finetune, ["--weights={}", "--init=rnadom"], "Did you mean random?"),
        (finetune, ["--weights={}", "--head_lr_factor=-1"], "--head_lr_factor=-1.0: must be from 0"),
    ],
)
def test_bad_input_gets_one_line(command, flags, said, source, tmp_path, capsys):
    argv = [flag.format(source) for flag in flags]
    assert command.main([*argv, f"--workdir={tmp_path / 'run'}"]) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.strip().splitlines()) == 1


def test_the_command_prints_the_accuracy(evaluated, source, capsys):
    _, workdir = evaluated
    argv = [f"--weights={source}", f"--workdir={workdir}", *LINEAR, *WHOLE]
    assert linear_eval.main(argv) == 0
    out = capsys.readouterr().out
    assert "test images      top-1 " in out and "result.json" in out
