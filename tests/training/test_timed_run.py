"""--minutes that do not suffice are refused right after the images were checked, by a clock that we turn."""

import types
from typing import Any

import pytest
import tensorflow as tf
from helpers.runs import tiny

from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate.label_free import LabelFreeMonitor
from simsiam_tf.recipes import budget, timing
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import pretraining, timed_run


@pytest.fixture
def trial(monkeypatch, tmp_path):
    """A run on 10,000 images: 0.2 s for an image in the baselines, 0.05 s in the backbone, 0.02 s of it
    for reading, 0.1 s whitened. Calls of the first three take 3 s more, for whatever number of images.
    """
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))
    calls = []

    def baselines(backbone, images):
        clock.now += 3 + 0.2 * images + (20 if not calls else 0)  # the first call traces
        calls.append(images)

    def extract(backbone, source, views, ids):
        clock.now += 3 + 0.05 * len(ids)

    def evaluation_views(source, views, ids):
        clock.now += 3 + 0.02 * len(ids)
        return ()

    monkeypatch.setattr(timed_run.extraction, "extract", extract)
    monkeypatch.setattr(timed_run.extraction, "evaluation_views", evaluation_views)
    monkeypatch.setattr(timing, "seconds_to_read", lambda *args: 0.1)
    source = types.SimpleNamespace(size=10_000)
    monitor = types.SimpleNamespace(
        baselines=baselines, source=source, size=lambda images=None: min(images or 10_000, 10_000)
    )
    config = tiny(tmp_path, "--minutes=3", "--epochs=100", "--knn_images=2700", "--batch_size=32")
    components = types.SimpleNamespace(
        model=types.SimpleNamespace(backbone=None), views=types.SimpleNamespace(count=2), build_seconds=4.0,
        workers=Workers(tf.distribute.get_strategy()),
        source=types.SimpleNamespace(pixels=None, squares=None),
    )  # fmt: skip
    return types.SimpleNamespace(
        config=config, components=components, monitor=monitor, read_size=64, calls=calls
    )  # fmt: skip


def test_costs_are_foreseen_by_a_few_images(trial):
    costs = timed_run.estimate_costs(trial)
    assert max(trial.calls) == timed_run.MANY_IMAGES, "no more images are evaluated"
    assert costs.parts == {
        "baselines": pytest.approx(0.2 * 2700 + 2 * 0.1 * timing.READ_IMAGES),
        "building the model and its first step": pytest.approx(2 * 4 + 0.2 * timed_run.FEW_IMAGES + 23),
        "whitening": pytest.approx(0.1 * 10_000),
        # Raw pixels and two networks, both whitened, too; and three times two views without labels.
        "final evaluation": pytest.approx(2000 * (1.5 * 0.2 + 2 * 0.1) + 3 * 2 * 2000 * 0.05),
    }
    assert costs.fixed == pytest.approx(sum(costs.parts.values()))
    assert costs.step == pytest.approx((0.02 + 3 * 0.03 * 2) * 32), "an image is read once for its views"
    trial.components.source.squares = object()
    assert timed_run.estimate_costs(trial).step == pytest.approx(3 * 0.03 * 2 * 32), (
        "copies are read once a run"
    )


def test_a_time_that_is_far_too_short_is_refused_by_them(trial):
    timed_run.estimate_costs(trial)  # traces
    needed = 2 / 3 * timed_run.estimate_costs(trial).seconds(budget.MIN_STEPS)
    timed_run.check_minutes(trial, needed + 1)
    with pytest.raises(UserError, match=r"minutes=3: is too short .*baselines 642 s.*`knn_images`"):
        timed_run.check_minutes(trial, needed - 1)
    trial.monitor = None
    timed_run.check_minutes(trial, 0.0)  # without a monitor the steps are timed at once


def test_baselines_are_not_evaluated_before_the_refusal(tmp_path, monkeypatch):
    monkeypatch.setattr(
        timed_run, "estimate_costs", lambda trial: budget.Costs(500.0, 1.0, parts={"baselines": 500.0})
    )
    monkeypatch.setattr(timed_run, "measure", lambda *args: pytest.fail("the baselines were evaluated"))
    config = tiny(tmp_path, "--minutes=3", "--epochs=100")
    with pytest.raises(UserError, match=r"is too short for 10 steps: .*baselines 500 s\)"):
        pretraining.pretrain(config)
    assert not (tmp_path / "config.json").exists()


def test_the_monitor_without_labels_is_foreseen_without_a_second_one(trial):
    labelled = timed_run.estimate_costs(trial).parts["final evaluation"]
    kind: Any = type("Judge", (LabelFreeMonitor,), {"__init__": lambda self: None})
    judge = kind()
    vars(judge).update(vars(trial.monitor), seed=0)
    trial.monitor = judge
    alone = timed_run.estimate_costs(trial).parts["final evaluation"]
    assert labelled - alone == pytest.approx(3 * 2 * 2000 * 0.05)


def test_a_pipeline_that_takes_long_to_start_is_no_cost_of_an_image():
    assert timing.seconds_per_image(lambda images: 0.7 + 0.003 * images, 64, 512) == pytest.approx(0.003)
    assert timing.seconds_per_image(lambda images: 0.6 - 0.0001 * images, 64, 512) == 0.0  # by chance
    assert timing.seconds_per_image(lambda images: 0.7, 0, 7) == pytest.approx(0.1)
