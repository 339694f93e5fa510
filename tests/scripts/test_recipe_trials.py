"""scripts/bench/recipe_trials.py: a finished run is not repeated, and its row has the set's answers."""

import argparse
import json

import numpy as np
import pytest
import recipe_trials
import set_answers

from scripts.sets.set_file import Picture
from simsiam_tf.command_line import cli
from simsiam_tf.config import PretrainConfig


@pytest.mark.parametrize("trial", recipe_trials.TRIALS)
def test_the_flags_of_each_variant_are_flags(trial, tmp_path):
    start = ["--backbone=keras:MobileNetV3Small+imagenet"] * (trial == "published")
    for flags in recipe_trials.TRIALS[trial].values():
        for training in recipe_trials.trainings_of(flags):
            argv = ["--recipe=auto", "--data=folder:x", f"--workdir={tmp_path}", *start, *training]
            cli.parse(PretrainConfig, argv)


def test_a_second_training_begins_with_the_weights_of_the_first_in_half_the_time(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(recipe_trials.subprocess, "run", lambda command, **_: commands.append(command))
    args = argparse.Namespace(folder=tmp_path / "set", minutes=6.0, seed=0, start=None)
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "metrics.jsonl").write_text("")
    recipe_trials.run(args, ["--image_size=16", recipe_trials.THEN, "--image_size=32"], workdir)
    first, second, _ = commands
    assert {"--minutes=3.0", "--image_size=16", f"--workdir={workdir}/training-1"} <= set(first)
    assert {"--minutes=3.0", "--image_size=32", f"--weights={workdir}/training-1"} <= set(second)
    assert f"--workdir={workdir}" in second and not any("--weights" in flag for flag in first)


def test_a_finished_run_becomes_a_row(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("a finished run is repeated")

    monkeypatch.setattr(recipe_trials.subprocess, "run", fail)
    rng = np.random.default_rng(0)
    rows = [Picture(f"{i}.png", "ab"[i % 2], f"g{i}", f"o{i // 2}", "xy"[i % 2]) for i in range(40)]
    features = rng.standard_normal((40, 6))
    args = argparse.Namespace(folder=tmp_path / "set", minutes=3.0, seed=0)
    workdir = tmp_path / recipe_trials.folder_name(args, "SimCLR, 2 local views")
    workdir.mkdir()
    (workdir / "minutes.txt").write_text("3.1\n")
    records = [{"step": 20, "loss": 1.0}, {"step": 37, "accuracy": {}}]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    names = np.array([row.path for row in rows])[::-1]
    np.savez(workdir / "embeddings.npz", names=names, features=features[::-1], about="{}")
    measured = recipe_trials.run(args, [], workdir)
    found = set_answers.answers(set_answers.prepare(features), rows)
    expected = f"| x | 3.1 | 37 | {100 * found['category']:.1f} | {100 * found['pair']:.1f} |"
    assert recipe_trials.row("x", *measured, rows) == expected
