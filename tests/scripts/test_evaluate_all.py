"""The table of evaluate_all: its commands parse, and its accuracies are those of the result files."""

import importlib
import json
import shlex
import subprocess
import typing

import evaluate_all
import pytest

from simsiam_tf.command_line import cli


def commands(capsys):
    assert evaluate_all.main(["some/run", "--dry_run"]) == 0
    return sorted(capsys.readouterr().out.splitlines())


def test_every_command_parses(capsys):
    found = commands(capsys)
    assert len(found) == 14
    for line in found:
        _, _, module, *flags = shlex.split(line)
        call = importlib.import_module(module).call
        (cls,) = (c for k, c in typing.get_type_hints(call).items() if k != "return")
        assert cli.parse(cls, flags).weights == "some/run"


def test_accuracies_are_read_and_averaged(tmp_path, capsys):
    for seed, top1 in enumerate((0.8, 0.9)):
        folder = tmp_path / f"seed{seed}" / "linear"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps({"top1": top1}))
    assert evaluate_all.main([str(tmp_path / "seed0"), str(tmp_path / "seed1"), "--only=views, LARS"]) == 0
    row = capsys.readouterr().out.splitlines()[-1]
    assert row == "| linear evaluation, augmented views, LARS | 80.00 | 90.00 | 85.00 |"


def test_two_folders_may_be_judged_at_a_time(capsys):
    assert evaluate_all.main(["a", "b", "--seed=1", "--dry_run", "--only=views, LARS"]) == 0
    seeds = [line.partition("--seed=")[2] for line in capsys.readouterr().out.splitlines()]
    assert seeds == ["1", "2"]


def test_a_row_that_was_not_asked_for_is_left_out(tmp_path, capsys):
    result = {"accuracy": {"this backbone": {"test": 0.9}}}  # of --raw_pixels=false
    (tmp_path / "probe-sgd.json").write_text(json.dumps(result))
    assert evaluate_all.main([str(tmp_path), "--only=kept features, SGD"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "| this backbone, kept features, SGD | 90.00 | 90.00 |"


def test_what_fails_is_left_out_of_the_table(tmp_path, capfd, monkeypatch):
    def failed(command):
        return subprocess.CompletedProcess(command, returncode=2)

    monkeypatch.setattr(evaluate_all.subprocess, "run", failed)
    assert evaluate_all.main([str(tmp_path), "--only=views, LARS"]) == 0
    out, err = capfd.readouterr()
    assert (
        "the table is without 'linear evaluation, augmented views, LARS'" in err
        and "80" not in out
        and out.splitlines()[-1].startswith("| ---")
    )


@pytest.mark.parametrize("percent", evaluate_all.SHARES)
def test_few_labels_are_held_against_random_weights(percent):
    names = [name for name, *_ in evaluate_all.rows("flags")]
    assert f"fine-tuned, {percent} % of the labels" in names
    assert f"from random weights, {percent} % of the labels" in names
