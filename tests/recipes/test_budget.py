"""--minutes: how many steps fit, which epochs give exactly these, and what a run in a folder keeps."""

import json
import random

import pytest

from simsiam_tf.command_line import cli
from simsiam_tf.config import PretrainConfig, to_flags
from simsiam_tf.data import sampling
from simsiam_tf.recipes import budget
from simsiam_tf.recipes.budget import Costs
from simsiam_tf.runtime.errors import UserError


def parse(*argv):
    return cli.parse(PretrainConfig, ["--data=digits", *argv])


def brute_force(costs, seconds):
    """The most steps by trying all numbers, evaluations counted one by one."""
    best, spent = 0, costs.fixed
    for n in range(1, 10_000):
        evaluates = costs.evaluation_steps and n % costs.evaluation_steps == 0
        spent += costs.step + (costs.evaluation if evaluates else 0)
        if spent > seconds:
            return best
        best = n
    raise AssertionError


@pytest.mark.parametrize("seed", range(50))
def test_as_many_steps_as_fit(seed):
    # Quarters of a second, so that sums are exact.
    rng = random.Random(seed)
    costs = Costs(rng.randint(0, 80) / 4, rng.randint(1, 9) / 4, rng.randint(0, 40) / 4, rng.randint(0, 7))
    seconds = rng.randint(0, 2000) / 4
    steps = costs.fitting_steps(seconds)
    assert steps == brute_force(costs, seconds)
    assert steps == 0 or costs.seconds(steps) <= seconds < costs.seconds(steps + 1)


def test_thirty_minutes_by_hand():
    """1,700 s left, 40 s of them fixed. A hundred steps and an evaluation take 33 s: 50 times, 10 s over."""
    costs = Costs(fixed=40.0, step=0.31, evaluation=2.0, evaluation_steps=100)
    config = budget.choose_epochs(parse("--minutes=30"), costs, 1700.0, images=60_000)
    assert sampling.steps_in(config.epochs, 60_000, config.batch_size) == 50 * 100 + 32
    assert config.minutes == 30


@pytest.mark.parametrize("seed", range(3))
def test_epochs_give_exactly_the_steps_and_survive_their_text(seed):
    rng = random.Random(seed)
    for _ in range(2000):
        images = int(10 ** rng.uniform(1, 7))
        batch, steps = rng.randint(2, min(images, 8192)), int(10 ** rng.uniform(0, 6))
        epochs = budget.epochs_for_steps(steps, images, batch)
        for value in (epochs, float(f"{epochs}"), json.loads(json.dumps(epochs))):
            assert sampling.steps_in(value, images, batch) == steps
        assert steps * batch / images <= epochs * (1 + 1e-12)
        assert epochs <= (steps * batch / images) * 1.01 + 0.01


def test_the_epochs_that_were_chosen_are_never_taken_for_none():
    """100 epochs, the default of `epochs`, would be timed anew by every rerun."""
    epochs = budget.epochs_for_steps(1000, images=640, batch_size=64)
    assert epochs != 100 and sampling.steps_in(epochs, 640, 64) == 1000
    config = PretrainConfig(minutes=3.0, epochs=epochs)
    assert not config.needs_timing and PretrainConfig(minutes=3.0).needs_timing
    assert not PretrainConfig().needs_timing


def test_all_that_takes_time_besides_the_steps_is_named():
    parts = {"building the model and its first step": 12.0, "whitening": 0.2, "final evaluation": 33.0}
    costs = Costs(fixed=45.2, step=0.1, evaluation=2.0, evaluation_steps=100, parts=parts)
    assert costs.rest_text(250, spent=95.0) == (
        "until now 95 s, building the model and its first step 12 s, final evaluation 33 s, "
        "evaluations during the training 4 s"
    )


def test_steps_that_another_program_has_trained_come_first():
    costs = Costs(fixed=0.0, step=1.0)
    config = parse("--minutes=1", "--batch_size=64", "--weights=w", "--start_epoch=10")
    chosen = budget.choose_epochs(config, costs, 40.0, images=640, first_step=100)
    assert sampling.steps_in(chosen.epochs, 640, 64) == 140


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        # Ten steps take 20 s after the 30 s that are fixed: 25 s more than there are, which is 0.42 minutes.
        (25.0, r"minutes=1: is too short for 10 steps: a step takes 2 s, start, evaluations and export about "
               r"65 s \(until now 35 s\)\. Pass minutes=1\.5 or more, or make"),
        (-100.0, r"about 190 s \(until now 160 s\)\. Pass minutes=3\.5 or more"),
    ],
)  # fmt: skip
def test_too_short_a_time_is_refused_with_one_that_suffices(seconds, expected):
    with pytest.raises(UserError, match=expected):
        budget.choose_epochs(parse("--minutes=1"), Costs(30.0, 2.0), seconds, images=1000)
    budget.choose_epochs(parse("--minutes=1"), Costs(30.0, 2.0), 50.0, images=1000)


def test_the_refusal_splits_the_cost_and_names_what_is_cheaper():
    costs = Costs(565.0, 2.0, parts={"baselines": 540.0, "whitening": 0.2, "final evaluation": 24.8})
    text = str(budget.too_short(parse("--minutes=3", "--image_size=160"), costs, 170.0))
    assert "(until now 10 s, baselines 540 s, final evaluation 25 s)" in text and "whitening 0" not in text
    for way in ("`image_size` than 160", "`knn_images`", "`final_images`", "monitor=none", "finish=none"):
        assert way in text
    spare = str(budget.too_short(parse("--minutes=3", "--monitor=none", "--finish=none"), costs, 170.0))
    assert not any(way in spare for way in ("knn_images", "monitor=none", "finish=none"))
    # 565 + 10 · 2 s are 415 s more than the 170 s that are left: 6.92 minutes more than three.
    assert "Pass minutes=10 or more" in text


def test_a_warm_up_longer_than_the_minutes_is_refused():
    config = parse("--minutes=1", "--batch_size=64", "--warmup_epochs=150")  # above the default of `epochs`
    with pytest.raises(
        UserError, match=r"minutes=1: is enough for 40 steps. warmup_epochs=150.0: must be below"
    ):
        budget.choose_epochs(config, Costs(0.0, 1.0), 40.0, images=640)
    assert budget.choose_epochs(config, Costs(0.0, 1.0), 2000.0, images=640).warmup_epochs == 150


def test_minutes_and_epochs_exclude_each_other(tmp_path):
    with pytest.raises(UserError, match=r"epochs=5.0 has no effect with `minutes`, from which it follows"):
        parse("--minutes=3", "--epochs=5")
    (tmp_path / "a.cfg").write_text("--epochs=5\n--warmup_epochs=1\n")
    config = parse(f"--flagfile={tmp_path}/a.cfg", "--minutes=3")
    assert config.needs_timing and config.warmup_epochs == 1


def test_the_flagfile_of_a_run_has_the_epochs_alone():
    asked = parse("--minutes=3")
    assert "--minutes=3.0" in to_flags(asked).splitlines()
    lines = to_flags(budget.choose_epochs(asked, Costs(0.0, 1.0), 30.0, images=5120)).splitlines()
    assert "--epochs=3.0" in lines and not any(line.startswith("--minutes") for line in lines)
    assert parse(*lines).epochs == 3


def test_a_run_is_recalled_by_its_minutes_or_by_their_epochs():
    before = {"minutes": 30.0, "epochs": 23.1}
    recorded = PretrainConfig(minutes=30.0, epochs=23.1)
    assert budget.recall_epochs(PretrainConfig(minutes=30.0), before) == recorded
    assert budget.recall_epochs(PretrainConfig(epochs=23.1), before) == recorded
    fewer = {**before, "final_images": 500}
    assert budget.recall_epochs(PretrainConfig(minutes=30.0), fewer).final_images == 500
    assert budget.recall_epochs(PretrainConfig(minutes=30.0, final_images=9), fewer).final_images == 9
    for other in (PretrainConfig(minutes=20.0), PretrainConfig(epochs=23.2), PretrainConfig()):
        assert budget.recall_epochs(other, before) == other
    for without in (None, {}, {"minutes": None, "epochs": 23.1}, {"minutes": 30.0, "epochs": "23.1"}):
        assert budget.recall_epochs(PretrainConfig(minutes=30.0), without).needs_timing
