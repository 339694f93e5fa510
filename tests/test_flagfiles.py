"""Every flagfile parses, says what to expect, and builds a model that takes a step."""

import dataclasses
import functools
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from simsiam_tf import nets, optimizers
from simsiam_tf.command_line import cli
from simsiam_tf.config import FinetuneConfig, LinearConfig, PretrainConfig, TransferConfig, differences
from simsiam_tf.data import sampling
from simsiam_tf.dense_tasks import transfer_task
from simsiam_tf.evaluate.supervised_model import SupervisedModel
from simsiam_tf.training import build_run, supervised

ROOT = Path(__file__).parents[1]
ALL = sorted(ROOT.glob("flags/**/*.cfg"))
KINDS = {  # by a word of a file's name
    "linear": LinearConfig, "finetune": FinetuneConfig, "supervised": FinetuneConfig,
    "detection": TransferConfig, "segmentation": TransferConfig,
}  # fmt: skip


def kind(path):
    return next((KINDS[word] for word in path.stem.split("_") if word in KINDS), PretrainConfig)


FILES = [path for path in ALL if kind(path) is PretrainConfig]
QUICK = ("flags", "cifar10")  # folders whose files take a step in the fast tests; all methods are among them
# What is no part of a step's graph, or only a number in it.
ELSEWHERE = (
    "data", "monitor", "monitor_queries", "augmentation", "image_size", "crop_area", "jitter", "blur_p",
    "base_lr", "weight_decay", "predictor_lr_factor",
)  # fmt: skip
DEFAULTS = {f.name: f.default for f in dataclasses.fields(PretrainConfig) if f.name in ELSEWHERE}


def small_backbone(name, size, channels, stem, width, **_):
    assert (name, channels) == ("resnet10", 3)
    images = keras.Input((None, None, channels))
    x = keras.layers.ReLU()(nets.BatchNorm()(nets.Conv(8, 3, 2)(images)))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))


@functools.cache  # many rows of a table are one graph with other numbers
def take_a_step(small):
    model = build_run.build_model(small, channels=3, size=16)
    before = [v.numpy() for v in model.learned_variables()]
    model.compile(build_run.build_optimizer(small, total_steps=10, size=100))
    model.optimizer.build(model.learned_variables())
    tf.random.set_seed(0)
    views = tuple(tf.random.normal([4, 16, 16, 3]) for _ in range(model.view_count))
    outputs = tf.function(model.step, autograph=False)({"views": views, "index": tf.range(4, dtype=tf.int64)})
    assert tf.math.is_finite(outputs["loss"])
    moved = [bool((a != v.numpy()).any()) for a, v in zip(before, model.learned_variables(), strict=True)]
    assert sum(moved) > len(moved) // 2


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_parses(path):
    assert path.read_text().startswith("# ")
    cli.parse(PretrainConfig, [f"--flagfile={path.relative_to(ROOT)}"])


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=str(p.relative_to(ROOT)), marks=() if p.parent.name in QUICK else pytest.mark.slow)
        for p in FILES
    ],
)
def test_builds_and_takes_a_step(path, monkeypatch):
    monkeypatch.setattr(nets, "build_backbone", small_backbone)  # traces faster
    config = cli.parse(PretrainConfig, [f"--flagfile={path.relative_to(ROOT)}"])
    take_a_step(
        dataclasses.replace(
            config, backbone="resnet10", d=64, projector_hidden=None, batch_size=4,
            predictor_hidden=None if config.h == "none" else 32,
            epochs=1.0, warmup_epochs=0.0, workdir=None, key_groups=min(config.key_groups, 2),
            stem="small", **DEFAULTS,
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [p for p in ALL if kind(p) in (LinearConfig, FinetuneConfig)],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_of_labels_parses_and_takes_a_step(path):
    assert path.read_text().startswith("# ")
    config = cli.parse(kind(path), [f"--flagfile={path}", "--weights=runs/quickstart"])
    frozen = isinstance(config, LinearConfig)
    model = SupervisedModel(small_backbone("resnet10", 16, 3, "small", 1.0), 4, frozen)
    model.compile(supervised.build_optimizer(config, total_steps=10, size=2**20))
    before = [v.numpy() for v in model.learned_variables()]
    batch = {"views": (tf.random.normal([4, 16, 16, 3]),), "target": tf.range(4, dtype=tf.int64)}
    assert tf.math.is_finite(tf.function(model.step, autograph=False)(batch)["loss"])
    assert all(
        (a != v.numpy()).any() for a, v in zip(before[-2:], model.learned_variables()[-2:], strict=True)
    )


@pytest.mark.parametrize(
    ("name", "images", "steps", "falls"),
    [
        ("voc07_12", 16_551, 24_000, [18_000, 22_000]),
        ("voc07", 5_011, 7_266, [5_450, 6_661]),
        ("coco", 118_287, 90_000, [60_000, 80_000]),
    ],
)
def test_the_schedules_of_transfers(name, images, steps, falls):
    config = cli.parse(TransferConfig, [f"--flagfile=flags/transfer/{name}_detection.cfg"])
    total = sampling.steps_in(config.epochs, images, config.batch_size)
    rate = transfer_task.learning_rate(config, total, images)
    assert total == pytest.approx(steps, rel=1e-3) and rate.milestones == pytest.approx(falls, rel=1e-3)
    assert [float(rate(step)) for step in (falls[0] - 50, falls[1] - 50, total - 1)] == pytest.approx(
        [0.01, 0.001, 0.0001]
    )


def test_transfers_at_a_small_scale_parse():
    paths = [path for path in ALL if kind(path) is TransferConfig and path.parent.name == "transfer"]
    assert {cli.parse(TransferConfig, [f"--flagfile={path}"]).task for path in paths} == {
        "detection", "segmentation",
    }  # fmt: skip
    assert all(path.read_text().startswith("# ") for path in paths)


def test_the_linear_evaluation_of_the_paper():
    config = cli.parse(LinearConfig, ["--flagfile=flags/imagenet/linear.cfg", "--weights=runs/quickstart"])
    lars = supervised.build_optimizer(config, total_steps=28_000, size=1_281_167)
    assert type(lars) is optimizers.LARS and lars.trust == 0.001 and lars.l2 == 0 and lars.momentum == 0.9
    assert float(lars._learning_rate(0)) == pytest.approx(0.02 * 4096 / 256)
    assert (config.epochs, config.batch_size, config.crop_area) == (90, 4096, 0.08)
    config = cli.parse(
        LinearConfig, ["--flagfile=flags/imagenet/linear_sgd.cfg", "--weights=runs/quickstart"]
    )
    sgd = supervised.build_optimizer(config, total_steps=450_000, size=1_281_167)
    assert type(sgd) is optimizers.SGD and float(sgd._learning_rate(0)) == 30 and config.batch_size == 256


def test_rows_of_the_paper_differ_from_the_baseline_in_what_they_name():
    base = dataclasses.asdict(cli.parse(PretrainConfig, ["--flagfile=flags/imagenet/simsiam_100ep.cfg"]))
    seen = {}
    for path in FILES:
        if path.parent.name == "paper":
            row = dataclasses.asdict(cli.parse(PretrainConfig, [f"--flagfile={path}"]))
            seen[path.stem] = differences(base, row, PretrainConfig)
    assert seen["table1_c_constant_lr"] == ["predictor_lr"]
    assert seen["fig2_without_stop_gradient"] == ["stop_gradient"]
    assert seen["fig2_with_stop_gradient"] == ["stop_gradient"]  # which the baseline leaves open
    assert seen["table2_batch_4096"] == ["batch_size", "warmup_epochs", "predictor_lr"]
    assert seen["appb_d_256"] == ["d", "predictor_lr"]
    assert len(seen) == 28
