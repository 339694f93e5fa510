"""Runs of seconds, whole: what is written, exact resume, the names of failures."""

import dataclasses
import hashlib
import json
import os

import keras
import numpy as np
import pytest
from helpers.runs import TINY, StopAt, state, tiny

from simsiam_tf.command_line import cli
from simsiam_tf.config import METHODS, PretrainConfig
from simsiam_tf.loop.metrics_file import MetricsFile
from simsiam_tf.loop.workdir import Workdir
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import pretraining, run_summary


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return pretraining.pretrain(tiny(workdir, "--knn_every=1")), workdir


def test_a_run_leaves_what_the_readme_promises(whole):
    outcome, workdir = whole
    assert outcome.status == pretraining.DONE and outcome.step == 22
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    trained = [r for r in records if "loss" in r]
    assert [r["step"] for r in trained] == [5, 10, 15, 20, 22]
    assert {"loss", "std", "rank", "lr", "lr_predictor"} <= set(trained[0])
    assert trained[-1]["loss"] < trained[0]["loss"]
    assert [r["step"] for r in records if "knn20" in r and "epoch" in r] == [0, 22]
    assert set(outcome.accuracy) == {"raw pixels", "untrained backbone", "backbone"}
    assert outcome.accuracy["raw pixels"]["knn20"] > 0.9  # digits are easy for pixels
    assert any((workdir / "tb").iterdir())
    again = cli.parse(PretrainConfig, [f"--flagfile={workdir}/config.flags"])
    assert again == tiny(workdir, "--knn_every=1")
    card = json.loads((workdir / "export" / "backbone.json").read_text())
    digest = hashlib.sha256((workdir / "export" / "backbone.keras").read_bytes()).hexdigest()
    assert card["sha256"] == digest
    text = run_summary.pretraining_summary(tiny(workdir), outcome)
    assert "this backbone" in text and "tensorboard --logdir" in text
    assert f"(from {outcome.records[0]['loss']:.3f}; least possible" in text
    short = dataclasses.replace(outcome, records=outcome.records[:1])
    assert "(of one record; least possible" in run_summary.pretraining_summary(tiny(workdir), short)


def test_labelled_images_are_judged_without_labels_too_at_the_end(whole):
    outcome, workdir = whole
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    *during, end = (r for r in records if "knn20" in r)
    assert not any("recall1" in r for r in during) and {"knn200", "recall1", "mrr", "rankme"} <= set(end)
    assert all({"knn20", "recall1"} <= set(a) for a in outcome.accuracy.values())
    summary = run_summary.pretraining_summary(tiny(workdir), outcome)
    assert "k = 20 k = 200 whitened own image MRR RankMe" in " ".join(summary.split())
    assert summary.split("\n\n")[-1].startswith("The features do not beat raw pixels ("), "labels decide"


def test_interrupted_twice_ends_bit_identical_to_uninterrupted(whole, tmp_path):
    _, reference = whole
    ends = []
    for stop in (3, 12, 99):
        ends.append(pretraining.pretrain(tiny(tmp_path, "--knn_every=1"), callbacks=[StopAt(stop)]))
    assert [o.status for o in ends] == [pretraining.INTERRUPTED, pretraining.INTERRUPTED, pretraining.DONE]
    assert 3 <= ends[0].step < 12 <= ends[1].step < 22
    assert state(tmp_path) == state(reference)
    weights = [
        keras.saving.load_model(w / "export" / "backbone.keras").get_weights() for w in (tmp_path, reference)
    ]
    assert all((a == b).all() for a, b in zip(*weights, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ["--method=moco", "--queue=200", "--key_groups=4"],
        ["--method=byol", "--optimizer=lars"],
        ["--method=swav", "--prototypes=20", "--frozen_prototypes=0.3"],
        ["--method=simclr", "--predictor=trained"],
        ["--method=vicreg"],
        ["--local_views=2", "--local_size=6"],
        ["--method=barlow", "--optimizer=lars"],
        ["--alternate=5"],
        ["--average=0.8", "--predictor=none", "--epochs=2"],
    ],
    ids=lambda f: f[0],
)
def test_what_the_other_methods_keep_survives_an_interruption(tmp_path, flags):
    without_h = {
        "--method=moco",
        "--method=swav",
        "--method=vicreg",
        "--method=barlow",
        "--predictor=none",
    } & set(flags)
    base = [f for f in TINY if not (without_h and "predictor" in f)]
    for name, stop in (("whole", 99), ("cut", 12), ("cut", 99)):
        config = cli.parse(PretrainConfig, [*base, *flags, "--monitor=none", f"--workdir={tmp_path / name}"])
        outcome = pretraining.pretrain(config, callbacks=[StopAt(stop)])
    assert outcome.status == pretraining.DONE
    assert state(tmp_path / "cut") == state(tmp_path / "whole")
    assert (
        run_summary.pretraining_summary(config, outcome).split()[0] == METHODS[config.method].title.split()[0]
    )


@pytest.mark.slow
def test_another_seed_is_another_run(whole, tmp_path):
    pretraining.pretrain(tiny(tmp_path, "--seed=1"))
    assert state(tmp_path)[1] != state(whole[1])[1]


def test_a_finished_run_is_not_trained_again(whole):
    _, workdir = whole
    before = state(workdir)
    outcome = pretraining.pretrain(tiny(workdir))
    assert outcome.status == pretraining.DONE and outcome.step == 22
    assert state(workdir) == before


def test_another_configuration_is_refused_by_the_names_of_its_fields(whole):
    _, workdir = whole
    with pytest.raises(UserError, match=r"`base_lr` was 0.4, is 0.1\..*config.flags"):
        pretraining.pretrain(tiny(workdir, "--base_lr=0.1"))
    with pytest.raises(UserError, match=r"`data` was digits"):
        pretraining.pretrain(tiny(workdir, "--data=digits:train[:1000]"))
    pretraining.pretrain(tiny(workdir, "--keep=5"))  # does not bind a run


def test_changed_data_under_the_same_name_is_refused(tmp_path):
    workdir = Workdir(tmp_path)
    workdir.bind(tiny(tmp_path), {"fingerprint of the images": "a1"})
    with pytest.raises(UserError, match="fingerprint of the images was a1, is b2"):
        workdir.bind(tiny(tmp_path), {"fingerprint of the images": "b2"})
    workdir.release()


def test_records_newer_than_the_checkpoint_are_made_again(tmp_path):
    metrics_file = MetricsFile(tmp_path / "metrics.jsonl")
    for step in (5, 10, 15):
        metrics_file.scalars(step, {"loss": -0.5}, "train")
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 20, "lo')  # cut off by a crash
    metrics_file.rewind(10)
    assert [r["step"] for r in metrics_file.rows] == [5, 10]
    metrics_file.scalars(15, {"loss": -0.6}, "train")
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [5, 10, 15]


def test_a_folder_in_use_is_refused(tmp_path):
    first = Workdir(tmp_path)
    with pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
        pretraining.pretrain(tiny(tmp_path))
    first.release()


@pytest.mark.slow
def test_without_stop_gradient_the_run_is_called_collapsed(tmp_path):
    # Neither output BN nor predictor stands in the way, so that it takes seconds (Fig. 2).
    flags = ["--stop_gradient=false", "--epochs=12", "--monitor=none", "--fail_on_collapse", "--bn=hidden"]
    outcome = pretraining.pretrain(tiny(tmp_path, *flags))
    assert outcome.status == pretraining.COLLAPSED
    assert outcome.diagnosis.name == "collapse"
    healthy = pretraining.pretrain(
        tiny(tmp_path / "with", "--epochs=12", "--monitor=none", "--fail_on_collapse", "--bn=hidden")
    )
    assert healthy.status == pretraining.DONE and healthy.diagnosis.name != "collapse"


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_commit(tmp_path):
    flags = [
        "--monitor=none",
        "--base_lr=1000",
        "--weight_decay=1",
        "--similarity=cross_entropy",
        "--epochs=3",
    ]
    outcome = pretraining.pretrain(tiny(tmp_path, *flags))
    assert outcome.status == pretraining.DIVERGED and outcome.diagnosis.name == "divergence"
    assert not (tmp_path / "export").exists()
    for folder in (tmp_path / "checkpoints").iterdir():
        import tensorflow as tf

        reader = tf.train.load_checkpoint(str(folder / "state"))
        for name in reader.get_variable_to_shape_map():
            value = reader.get_tensor(name)
            assert not np.issubdtype(value.dtype, np.floating) or np.isfinite(value).all()


@pytest.mark.slow
@pytest.mark.parametrize(("step", "method"), [(10, "simsiam"), (22, "simclr")])
def test_weights_that_are_no_numbers_are_never_committed(tmp_path, step, method):
    """The loss of a step is that of the weights before it; after the last step there is no other."""

    class Poison(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch + 1 >= step:
                gamma = self.model.backbone.trainable_variables[1]
                gamma.assign(gamma * np.nan)

    flags = ("--monitor=none", "--save_minutes=0", f"--method={method}", "--predictor=trained")
    outcome = pretraining.pretrain(tiny(tmp_path, *flags), callbacks=[Poison()])
    assert outcome.status == pretraining.DIVERGED and outcome.diagnosis.name == "divergence"
    assert ("swav" in outcome.diagnosis.advice) == (method == "simclr"), "the advice is for another loss"
    assert 0 < max(int(p.name[5:]) for p in (tmp_path / "checkpoints").iterdir()) < step
    assert not (tmp_path / "export").exists()


@pytest.mark.slow
def test_views_finished_with_the_model_train_the_same(tmp_path):
    # At the rate of the other runs here, rounding of 1e-7 grows to 4e-3 within 22 steps.
    flags = ("--monitor=none", "--base_lr=0.1")
    runs = [
        pretraining.pretrain(tiny(tmp_path / place, f"--augment_on={place}", *flags))
        for place in ("device", "host")
    ]
    losses = [[r["loss"] for r in run.records if "loss" in r] for run in runs]
    np.testing.assert_allclose(losses[0], losses[1], atol=2e-4)


@pytest.mark.slow
def test_a_sample_serves_during_training_and_all_images_at_the_end(whole, tmp_path):
    outcome = pretraining.pretrain(tiny(tmp_path, "--knn_images=300"))
    assert outcome.accuracy == whole[0].accuracy  # the untrained backbone's too, made anew
    at_start, *_, last = (
        r for r in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines()) if "knn20" in r
    )
    assert at_start["step"] == 0 and last["images"] == "all"
    assert at_start["knn20"] != outcome.accuracy["untrained backbone"]["knn20"]


@pytest.mark.slow
def test_keras_callbacks_can_stop_the_run(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            assert {"loss", "std"} <= set(logs)
            self.model.stop_training = True

    outcome = pretraining.pretrain(tiny(tmp_path, "--epochs=5", "--monitor=none"), callbacks=[Stop()])
    assert outcome.step == 23  # the first epoch's end


@pytest.mark.slow
def test_weights_start_a_run_and_another_architecture_is_refused(whole, tmp_path):
    _, workdir = whole
    started = pretraining.pretrain(tiny(tmp_path / "a", f"--weights={workdir}"))
    expected, found = whole[0].accuracy["backbone"], started.accuracy["untrained backbone"]
    only_at_the_end = {"inference_std", "knn_queries", "recall1_queries"}
    assert found == {name: value for name, value in expected.items() if name not in only_at_the_end}
    with pytest.raises(UserError, match=r"another architecture.*Pass backbone=\w+ stem=\w+ width=0\.\d+\.$"):
        pretraining.pretrain(tiny(tmp_path / "b", f"--weights={workdir}", "--width=0.25"))
    export = workdir / "export" / "backbone.keras"
    damaged = bytearray(export.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "backbone.keras").write_bytes(damaged)
    (tmp_path / "backbone.json").write_text((workdir / "export" / "backbone.json").read_text())
    with pytest.raises(UserError, match="is damaged"):
        pretraining.pretrain(tiny(tmp_path / "c", f"--weights={tmp_path / 'backbone.keras'}"))
