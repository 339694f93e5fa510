"""Runs with --minutes: nothing remains of the timed trial, and a run that goes on keeps its steps."""

import json
import time

import pytest
from helpers.runs import StopAt, state, tiny

from simsiam_tf.command_line import cli
from simsiam_tf.config import PretrainConfig
from simsiam_tf.evaluate.knn_monitor import Monitor
from simsiam_tf.recipes import timing
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import inspection, pretraining

MINUTES = ("--minutes=50", "--monitor=none")


def minutes(workdir, *more):
    config = tiny(workdir, "--epochs=100", *MINUTES, *more)  # the default of `epochs`
    assert config.needs_timing
    return config


@pytest.fixture
def slow_steps(monkeypatch):
    """A trial that trains for real, and says that a step takes so long that about 25 fit; counts trials."""
    real, trials = timing.time_steps, []

    def told(components, config, seconds):
        real(components, config, 0.1)
        trials.append(components.total_steps)
        return 0.0, 3000 / 25

    monkeypatch.setattr(timing, "time_steps", told)
    return trials


def by_hand(workdir, flagfile):
    """A run in another folder with the steps of a flagfile."""
    lines = [line for line in flagfile.read_text().splitlines() if not line.startswith("--workdir")]
    assert not any(line.startswith("--minutes") for line in lines)
    return pretraining.pretrain(cli.parse(PretrainConfig, [*lines, f"--workdir={workdir}"]))


@pytest.mark.slow
def test_a_timed_run_is_the_run_of_its_steps_and_goes_on_with_them(tmp_path, slow_steps, monkeypatch, capsys):
    run = tmp_path / "run"
    outcome = pretraining.pretrain(minutes(run), callbacks=[StopAt(7)])
    assert outcome.status == pretraining.INTERRUPTED and len(slow_steps) == 1 and slow_steps[0] > 10**6
    assert "50 minutes: 120 s a step, 2" in capsys.readouterr().err
    monkeypatch.setattr(timing, "time_steps", lambda *args: pytest.fail("it was timed anew"))
    with pytest.raises(UserError, match=r"`minutes` was 50.0, is 60.0\. Choose another folder"):
        pretraining.pretrain(minutes(run, "--minutes=60"))
    with pytest.raises(UserError, match=r"`epochs` was [01]\.\d+, is 9.0.*`minutes` was 50.0, is None"):
        pretraining.pretrain(tiny(run, "--epochs=9", "--monitor=none"))
    outcome = pretraining.pretrain(minutes(run))
    assert outcome.status == pretraining.DONE and 20 <= outcome.step < 25
    whole = by_hand(tmp_path / "other", run / "config.flags")
    assert whole.step == outcome.step and state(tmp_path / "other") == state(run)
    with pytest.raises(UserError, match=r"`minutes` was None, is 50.0"):
        pretraining.pretrain(minutes(tmp_path / "other"))


@pytest.mark.slow
def test_the_flagfile_of_a_timed_run_continues_it_and_its_baselines_are_those_of_the_trial(
    tmp_path, slow_steps, monkeypatch
):
    run, monitored = tmp_path / "run", ("--monitor=auto", "--knn_every=1", "--knn_images=600")
    evaluated, accuracy = [], Monitor.accuracy
    monkeypatch.setattr(
        Monitor, "accuracy", lambda *args, **kw: evaluated.append(args[2]) or accuracy(*args, **kw)
    )
    pretraining.pretrain(minutes(run, *monitored), callbacks=[StopAt(7)])
    assert evaluated.count(600) == 2 and len(slow_steps) == 1  # raw pixels and untrained backbone, once
    resumed = cli.parse(PretrainConfig, [f"--flagfile={run}/config.flags"])
    stopped = pretraining.pretrain(resumed, callbacks=[StopAt(14)])
    assert stopped.status == pretraining.INTERRUPTED and stopped.step >= 14
    outcome = pretraining.pretrain(minutes(run, *monitored))
    assert outcome.status == pretraining.DONE and len(slow_steps) == 1
    description = json.loads((run / "config.json").read_text())
    assert description["minutes"] == 50 and description["epochs"] == resumed.epochs != 100
    whole = by_hand(tmp_path / "other", run / "config.flags")
    assert whole.accuracy == outcome.accuracy and state(tmp_path / "other") == state(run)
    assert pretraining.pretrain(minutes(run, *monitored)).step == outcome.step


@pytest.mark.slow
def test_a_run_killed_while_it_is_timed_leaves_nothing(tmp_path, slow_steps, monkeypatch):
    class Killed(BaseException):
        pass

    told = timing.time_steps

    def killed(*args):
        told(*args)
        raise Killed

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(timing, "time_steps", killed)
        with pytest.raises(Killed):
            pretraining.pretrain(minutes(run))
    assert not (run / "config.json").exists() and not (run / "checkpoints").exists()
    outcome = pretraining.pretrain(minutes(run))
    assert outcome.status == pretraining.DONE and len(slow_steps) == 2
    by_hand(tmp_path / "other", run / "config.flags")
    assert state(tmp_path / "other") == state(run)


def test_a_time_too_short_for_the_start_is_refused_before_any_training(tmp_path):
    config = minutes(tmp_path, "--minutes=0.05")
    with pytest.raises(UserError, match=r"minutes=0.05: is too short for 10 steps: .* Pass minutes=\d"):
        pretraining.pretrain(config)
    assert not (tmp_path / "config.json").exists()


def test_time_that_passed_before_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "time_steps", lambda *args: (200.0, 1.0))
    began = time.monotonic() - 6000
    with pytest.raises(UserError, match=r"minutes=50: is too short.* 1 s, start, .* about 62\d\d s"):
        pretraining.pretrain(minutes(tmp_path), began=began)


def test_memory_that_runs_out_in_the_trial_names_the_batch(tmp_path, monkeypatch):
    def exhausted(*args):
        raise MemoryError

    monkeypatch.setattr(timing, "time_steps", exhausted)
    with pytest.raises(UserError, match="step 0 failed.*try a smaller `batch_size` than 64"):
        pretraining.pretrain(minutes(tmp_path))


@pytest.mark.slow
def test_a_dry_run_says_what_minutes_mean(tmp_path, capsys):
    assert inspection.dry_run(minutes(tmp_path, "--warmup_epochs=200")) == 0
    out = capsys.readouterr().out
    assert "as many as fit into 50 minutes, by a few that are timed at the start, 22.5 per epoch" in out
    assert "--minutes=50.0\n" in out and "--epochs" not in out, "which minutes replace"
    assert "time                   50 minutes, from the start" in out
