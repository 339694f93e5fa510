"""Transfer as a run: scores, resume, export, and one line for bad input."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.runs import StopAt, state

from simsiam_tf import nets, transfer
from simsiam_tf.command_line import cli
from simsiam_tf.config import TransferConfig
from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.dense_tasks import dry_run, transfer_task
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.loop import compiled_steps
from simsiam_tf.loop.outcome import DONE
from simsiam_tf.optimizers import schedules
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime.signals import INTERRUPTED
from simsiam_tf.training import costs

pytest.importorskip("keras_hub")
SHORT = [
    "--data=scenes:digits", "--scenes=16", "--image_size=64", "--batch_size=4", "--epochs=2", "--metric=voc",
    "--log_every=1", "--precision=float32", "--strategy=one_device", "--eval_every=0", "--flip_p=0",
]  # fmt: skip


def exported(folder, stem="imagenet"):
    folder.mkdir(exist_ok=True)
    keras.utils.set_random_seed(0)
    views = json.loads(json.dumps(dataclasses.asdict(AUGMENTATIONS["grayscale"])))
    card = {"step": 1, "views": views, "configuration": {"data": "digits"}}
    backbone_file.export_network(nets.resnet10(stem, channels=1), folder, card)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("backbone"))


def config_of(source, workdir, *more):
    flags = [flag for flag in SHORT if not ("segmentation" in str(more) and "metric" in flag)]
    return cli.parse(TransferConfig, [f"--weights={source}", f"--workdir={workdir}", *flags, *more])


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_interrupted_it_ends_bit_identical_and_keras_hub_opens_it(task, source, tmp_path):
    def run(name, stop):
        keras.utils.clear_session()  # layers get the names of a new process, by which TensorFlow orders sums
        config = config_of(source, tmp_path / name, f"--task={task}")
        return transfer_task.run_transfer(config, [StopAt(stop)])

    ends = [run("a", 3), run("a", 99)]
    assert [end.status for end in ends] == [INTERRUPTED, DONE]
    run("b", 99)
    assert state(tmp_path / "a") == state(tmp_path / "b")
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert result["what"] == task and result["images"] == 16 and 0 <= result[result_name(task)] <= 1
    assert ends[1].accuracy[task][result_name(task)] == result[result_name(task)]
    paths = transfer_task.files_of(task)
    assert all((tmp_path / "a" / path).exists() for path in paths.values())
    opened = keras.saving.load_model(tmp_path / "a" / paths["network"])
    assert type(opened).__module__.startswith("keras_hub.")
    images = np.random.default_rng(0).normal(size=(1, 64, 64, 1)).astype(np.float32)
    trained = {v.path.split("/", 1)[-1]: v.numpy() for v in opened.variables}
    assert all(np.isfinite(value).all() for value in trained.values())
    outputs = tf.nest.flatten(opened(images, training=False))
    assert all(np.isfinite(output).all() for output in outputs)


@pytest.mark.slow
def test_the_dry_run_tells_size_and_work_and_writes_nothing(source, tmp_path, capsys):
    flags = [f"--weights={source}", f"--workdir={tmp_path / 'run'}", *SHORT, "--dry_run"]
    assert transfer.main(flags) == 0
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if "  " in line)
    assert printed["steps"] == "8, 4.0 per epoch" and printed["squares"] == "64 pixels"
    assert printed["parameters"].startswith("4,905,280 backbone") and "multiply-adds" in printed["work"]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_killed_it_ends_bit_identical(task, source, tmp_path):
    def start(name):
        flags = [f for f in SHORT if f not in ("--flip_p=0", "--metric=voc" * (task == "segmentation"))]
        command = [sys.executable, "-m", "simsiam_tf.transfer", f"--task={task}", f"--weights={source}"]
        return subprocess.Popen([*command, *flags, "--epochs=6", f"--workdir={tmp_path / name}"])

    process = start("killed")
    deadline = time.monotonic() + 240
    while not list((tmp_path / "killed").glob("checkpoints/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "result.json").exists()
    for name in ("killed", "whole"):
        assert start(name).wait(400) == 0
    assert state(tmp_path / "killed") == state(tmp_path / "whole")
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("killed", "whole")]
    assert results[0][result_name(task)] == results[1][result_name(task)]
    pictures = [(tmp_path / name / "export/predictions.png").read_bytes() for name in ("killed", "whole")]
    assert pictures[0] == pictures[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "images", "classes", "steps"),
    [("voc07", 5_011, 20, 7_265), ("voc07_12", 16_551, 20, 23_998), ("coco", 118_287, 80, 89_972)],
)
def test_flagfiles_are_priced_before_their_weights_and_images_are_there(
    name, images, classes, steps, tmp_path, monkeypatch, capsys
):
    flagfile = Path("flags/transfer").absolute() / f"{name}_detection.cfg"
    monkeypatch.chdir(tmp_path)
    assert transfer.main([f"--flagfile={flagfile}", "--dry_run", f"--data_dir={tmp_path}"]) == 0
    printed, said = capsys.readouterr()
    row = dict(line.split(maxsplit=1) for line in printed.splitlines() if "  " in line)
    assert (
        f"{images} of " in printed
        and f"{classes} classes" in printed
        and row["steps"].startswith(f"{steps},")
    )
    assert "a ResNet-50 is counted" in said and "its published numbers are counted" in said
    assert not list(tmp_path.iterdir()), "nothing was downloaded"


@pytest.mark.slow
def test_a_frozen_backbone_costs_its_forward_pass_alone(source, tmp_path):
    passes = {}
    for more in ([], ["--freeze"]):
        config = config_of(source, tmp_path, *more)
        parts, test = transfer_task.build_transfer(config, Workers(tf.distribute.get_strategy()))
        about = dry_run.summarize(config, parts, test)
        passes[bool(more)] = float(about["work"].split()[1])
        kept = (16 + 8) * 64 * 64 * 4
        assert parts.source.bytes_kept() + test.images.bytes_kept() == kept
    shape = (64, 64, 1)
    backbone = costs.multiply_adds(parts.model.backbone, shape)
    assert passes[False] - passes[True] == pytest.approx(2 * backbone * 4 * 8, rel=0.1)


def test_the_optimizer_is_the_one_that_was_asked_for(source, tmp_path):
    more = ["--optimizer=adamw", "--backbone_lr_factor=0.1", "--weight_decay=0.01", "--momentum=0.8"]
    parts, _ = transfer_task.build_transfer(
        config_of(source, tmp_path, *more), Workers(tf.distribute.get_strategy())
    )
    adamw = parts.model.optimizer
    assert (adamw.momentum, adamw.beta_2, adamw.decoupled_decay) == (0.8, 0.999, 0.01)
    base, backbone = adamw._learning_rate, adamw.part_learning_rates["backbone"]
    assert float(backbone(3)) == pytest.approx(0.1 * float(base(3))) and float(base(3)) > 0


def result_name(task):
    return "AP50" if task == "detection" else "mIoU"


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_two_replicas_agree_with_one(task, source, tmp_path, two_replicas):
    ends = []
    for name, strategy in (("one", tf.distribute.get_strategy()), ("two", two_replicas)):
        config = config_of(source, tmp_path / name, f"--task={task}")
        parts, _ = transfer_task.build_transfer(config, Workers(strategy))
        steps, batches = (
            compiled_steps.compiled_steps(parts, config),
            compiled_steps.batches(parts, config, 0),
        )
        rows, _ = steps(batches, tf.constant(3))
        ends.append(rows.numpy())
    np.testing.assert_allclose(ends[0][:, 0], ends[1][:, 0], rtol=2e-3)


@pytest.mark.slow
def test_random_weights_are_others_and_a_share_is_a_part(source, tmp_path):
    parts = {}
    workers = Workers(tf.distribute.get_strategy())
    for init in ("weights", "random"):
        config = config_of(source, tmp_path, f"--init={init}", "--labels=0.5", "--freeze")
        parts[init] = transfer_task.build_transfer(config, workers)
    kernels = {init: p[0].model.backbone.get_layer("conv1_conv").kernel.numpy() for init, p in parts.items()}
    stored = keras.saving.load_model(source / backbone_file.EXPORTED).get_layer("stem_conv").kernel.numpy()
    np.testing.assert_array_equal(kernels["weights"], stored)
    assert (kernels["random"] != stored).all() and np.std(kernels["random"]) == pytest.approx(
        np.std(stored), rel=0.1
    )
    assert parts["weights"][0].source.size == 8 and parts["weights"][1].images.size == 8
    assert not parts["weights"][0].model.backbone.trainable
    names = [transfer_task.workdir_of(dataclasses.replace(config, workdir=None, init=i, labels=n)).name
             for i, n in (("weights", 1.0), ("random", 0.1))]  # fmt: skip
    assert names == ["detection", "detection-random-0.1"]


def test_the_learning_rate_falls_at_the_milestones(source, tmp_path):
    config = config_of(source, tmp_path, "--schedule=steps", "--milestones=0.5,0.75", "--base_lr=0.64")
    rate = transfer_task.learning_rate(config, 100, 80)
    base = 0.64 * 4 / 256  # after half an epoch of 20 steps
    assert isinstance(rate, schedules.Steps)
    for step, expected in ((0, 0), (5, base / 2), (10, base), (49, base), (50, base / 10), (99, base / 100)):
        assert float(rate(step)) == pytest.approx(expected, rel=1e-5)
    assert isinstance(transfer_task.learning_rate(config_of(source, tmp_path), 100, 80), schedules.Cosine)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--data=", "--scenes=2000"], "--data: missing"),
        (["--image_size=100"], "--image_size=100: must be a multiple of 32, such as 96."),
        (["--labels=0"], "--labels=0.0: must be above 0"),
        (["--min_scale=2"], "--min_scale=2.0: is above --max_scale=1.25"),
        (["--schedule=steps", "--milestones=0.9,0.5"], "--milestones=0.9,0.5: must be shares that ascend"),
        (["--milestones=0.5"], "--milestones=0.5 has no effect with another --schedule than steps"),
        (["--data=scenes:digits", "--scenes=1"], "--scenes=1: must be from 16"),
        (["--data=nothing:x", "--scenes=2000"], "nothing:x: no such annotated set"),
        (["--batch_size=32"], "batch_size=32"),
        (["--data=scenes:digits:train"], "names a split, and both are used. Pass --data=scenes:digits."),
    ],
)
def test_bad_input_gets_one_line(flags, line, source, tmp_path, capsys):
    argv = [f"--weights={source}", f"--workdir={tmp_path / 'run'}", *SHORT, *flags]
    assert transfer.main(argv) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert line in error


def test_a_network_that_keras_hub_has_not_is_refused(tmp_path, capsys):
    weights = exported(tmp_path / "small", stem="small")
    assert transfer.main([f"--weights={weights}", f"--workdir={tmp_path / 'run'}", *SHORT]) == 2
    assert "keras-hub has no resnet10 with a small stem" in capsys.readouterr().err


def test_places_do_not_depend_on_the_working_folder(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given, absolute in (
        ("coco:street,night", f"coco:{tmp_path}/street,night"),
        ("masks:a,b", f"masks:{tmp_path}/a,{tmp_path}/b"),
        ("scenes:folder:emoji", f"scenes:folder:{tmp_path}/emoji"),
        ("scenes:digits", "scenes:digits"),
        ("tfds:voc/2007", "tfds:voc/2007"),
    ):
        assert TransferConfig(weights=str(source), data=given).absolute().data == absolute
