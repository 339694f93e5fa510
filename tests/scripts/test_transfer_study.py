"""The comparison of transfers: its commands, and its page from results by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.paper import transfer as study
from scripts.paper.transfer import STARTS, Trial
from simsiam_tf.command_line import cli
from simsiam_tf.config import TransferConfig
from simsiam_tf.data import sampling
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.runtime.signals import INTERRUPTED

SCORES = {  # AP50 or mIoU by start, of two seeds
    "random": (0.10, 0.20), "supervised": (0.50, 0.52), "simsiam": (0.52, 0.505),
}  # fmt: skip


def runs(scores=SCORES):
    return {
        Trial(task, share, start, seed): {names[0]: value, names[1]: value / 2}
        for task, names in study.METRICS.items()
        for share in study.SHARES
        for start in STARTS
        for seed, value in enumerate(scores[start])
    }


def test_commands_need_only_the_checkout():
    """Not the folders of scripts and helpers, which pytest adds to the path."""
    code = "import scripts.paper.reproduce, scripts.paper.transfer"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], env=environment, check=True)


def test_shares_take_as_many_steps(tmp_path):
    for task in study.METRICS:
        steps, warmups = set(), set()
        for share in study.SHARES:
            config = cli.parse(TransferConfig, Trial(task, share, "simsiam", 1).stage(tmp_path).flags)
            images = round(config.scenes * config.labels)
            steps.add(sampling.steps_in(config.epochs, images, config.batch_size))
            warmups.add(int(config.warmup_epochs * images) // config.batch_size)
            assert (config.seed, config.weights, config.init) == (1, str(tmp_path / "simsiam"), "weights")
        assert len(steps) == len(warmups) == 1
    random = cli.parse(TransferConfig, Trial("detection", 1.0, "random", 0).stage(tmp_path).flags)
    assert random.init == "random"


def test_the_page_has_means_and_claims(tmp_path):
    study.write(tmp_path / "results", runs())
    page = (tmp_path / "results.md").read_text()
    assert "| detection, AP50 | 60 | 15.0 ± 7.1 | 51.0 ± 1.4 | 51.2 ± 1.1 | 2 |" in page
    assert "| segmentation, mIoU | 600 |" in page and "| detection, AP | 600 | 7.5 ± 3.5 |" in page
    # Gains over random weights: 42 and 30.5 points; over labels: 2 and -1.5, so that every second holds.
    assert "random ones | shown: in 8 of 8 pairs of runs; +36.2 points in the mean |" in page
    assert "(within a point) | not shown: in 4 of 8 pairs of runs; +0.2 points in the mean |" in page
    stored = json.loads((tmp_path / "results.json").read_text())
    assert len(stored["runs"]) == 24 and {"machine", "date"} < set(stored)
    assert stored["runs"][0] == {
        "task": "detection", "share": 0.1, "start": "random", "seed": 0, "AP50": 0.1, "AP": 0.05,
    }  # fmt: skip


def test_a_page_of_some_runs_leaves_gaps(tmp_path):
    some = {trial: scores for trial, scores in runs().items() if trial.start == "simsiam" and not trial.seed}
    study.write(tmp_path / "results", some)
    page = (tmp_path / "results.md").read_text()
    assert "| detection, AP50 | 60 | – | – | 52.0 | 0 |" in page and "random ones | – |" in page


def test_one_seed_does_not_show_a_claim(tmp_path):
    study.write(tmp_path / "results", {t: scores for t, scores in runs().items() if not t.seed})
    page = (tmp_path / "results.md").read_text()
    assert "random ones | open: in 4 of 4 pairs" in page


def test_done_stages_are_not_run_again_and_failures_are_named(tmp_path, capsys, monkeypatch):
    ran = []

    def run(command, stdout, **_):
        ran.append(command[2])
        stdout.write("what happened\n")
        return type("Done", (), {"returncode": status})

    monkeypatch.setattr(study.subprocess, "run", run)
    for trial in runs():
        stage = trial.stage(tmp_path)
        stage.workdir.mkdir(parents=True)
        scores = dict.fromkeys(study.METRICS[trial.task], 0.5)
        (stage.workdir / "result.json").write_text(json.dumps(scores))
    status = 0
    assert study.main([f"--folder={tmp_path}"]) == 0
    assert ran == ["simsiam_tf.pretrain", "simsiam_tf.finetune"]  # whose ends no file shows here
    assert "random ones | not shown: in 0 of 8" in (tmp_path / "results.md").read_text(), "ties"
    status = INTERRUPTED
    assert study.main([f"--folder={tmp_path}"]) == INTERRUPTED
    status = 2
    assert study.main([f"--folder={tmp_path}"]) == 2
    assert "what happened" in capsys.readouterr().err
    with pytest.raises(UserError):
        study._stage("pretrain", "simsiam", tmp_path / "simsiam").run()
