"""Two workers, real processes: one run, written once; ended or lost together, continued to the bit."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers.runs import TINY, state

from simsiam_tf.command_line import cli
from simsiam_tf.config import PretrainConfig
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import pretraining

ROOT = Path(__file__).parents[2]
GRACE = 30  # seconds in which the survivors of a lost worker end


class Launched:
    """scripts/launch_local.sh with two workers, and what they said."""

    def __init__(self, workdir, *more):
        given = {f.partition("=")[0] for f in more}
        flags = [f for f in TINY if f.partition("=")[0] not in {"--strategy", *given}]
        if {"--predictor=none", "--method=simclr", "--method=swav", "--method=vicreg"} & set(more):
            flags = [f for f in flags if "predictor" not in f]
        self.log = open(f"{workdir}.log", "a+")  # noqa: SIM115 - closed by `end`
        self.process = subprocess.Popen(
            [ROOT / "scripts" / "launch_local.sh", "2", "--", *flags, f"--workdir={workdir}", *more],
            stdout=self.log, stderr=subprocess.STDOUT, env={**os.environ, "PYTHON": sys.executable},
        )  # fmt: skip

    def pids(self):
        """Of both workers, by number."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                given = (path / "environ").read_bytes().decode()
            except OSError:
                continue
            number = re.search(r'"index": (\d)', given)
            if parent == self.process.pid and number and b"simsiam_tf" in (path / "cmdline").read_bytes():
                found[int(number[1])] = int(path.name)
        return found

    def wait_for(self, metrics, step, seconds=180):
        """Until a record of this step, or a later one, is written."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            lines = metrics.read_text().splitlines() if metrics.exists() else []
            if lines and json.loads(lines[-1])["step"] >= step:
                return
            time.sleep(0.02)
        pytest.fail(f"step {step} was not reached:\n{self.said()[-3000:]}")

    def end(self, seconds=180):
        """Exit status."""
        try:
            return self.process.wait(seconds)
        finally:
            for pid in self.pids().values():
                os.kill(pid, signal.SIGKILL)
            self.log.flush()

    def said(self):
        return Path(self.log.name).read_text()


def left_of(workdir):
    """Processes that name a work folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"--workdir={workdir}".encode() in (path / "cmdline").read_bytes().split(b"\0"):
                found.append(int(path.name))
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("workers") / "whole"
    launched = Launched(workdir)
    assert launched.end() == pretraining.DONE, launched.said()
    return workdir, launched.said()


def test_two_workers_write_one_run(whole):
    workdir, said = whole
    assert not left_of(workdir)
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "loss" in r] == [5, 10, 15, 20, 22]
    assert len([r for r in records if "knn20" in r]) == 2
    assert len(list((workdir / "tb").iterdir())) == 1
    assert said.count("this backbone  ") == 1
    assert "WARNING:tensorflow" not in said and "E0000" not in said, "nothing that a user can mend"
    assert not list(workdir.glob("checkpoints/.writing-*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "steps"),
    [
        (["--average=0.8", "--predictor=none", "--epochs=2", "--base_lr=0.1"], 44),  # all images twice
        (["--method=byol"], 5),  # later, rounding has grown
        (["--method=simclr"], 2),
        (["--method=swav", "--prototypes=20"], 5),
        (["--method=vicreg"], 5),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_methods_keep_is_the_same_on_two_workers(tmp_path, flags, steps):
    launched = Launched(tmp_path / "two", *flags, "--monitor=none", "--log_every=1")
    assert launched.end() == pretraining.DONE, launched.said()
    written = (tmp_path / "two" / "config.flags").read_text().split()
    own = [f for f in written if not f.startswith(("--strategy", "--workdir"))]
    pretraining.pretrain(
        cli.parse(PretrainConfig, [*own, "--strategy=one_device", f"--workdir={tmp_path / 'one'}"])
    )
    lines = ((tmp_path / n / "metrics.jsonl").read_text().splitlines() for n in ("one", "two"))
    one, two = ([r["loss"] for r in map(json.loads, of) if "loss" in r][:steps] for of in lines)
    assert len(one) == steps and two == pytest.approx(one, abs=1e-3 if steps > 5 else 1e-4)


@pytest.mark.slow
def test_two_workers_are_two_replicas_of_one_process(whole, tmp_path):
    argv = [*TINY, "--strategy=mirrored", f"--workdir={tmp_path}"]
    # A process of its own: two MirroredStrategies in one process share TensorFlow's collective keys.
    script = Path(__file__).parents[1] / "helpers" / "two_cpus.py"
    done = subprocess.run([sys.executable, script, *argv], capture_output=True, text=True, timeout=300)
    assert done.returncode == pretraining.DONE, done.stderr
    assert "this backbone" in done.stdout
    a, b = (
        [r for r in map(json.loads, (path / "metrics.jsonl").read_text().splitlines()) if "loss" in r]
        for path in (whole[0], tmp_path)
    )
    for key in ("loss", "loss_spread", "std", "rank", "lr", "lr_predictor"):
        np.testing.assert_allclose([r[key] for r in a], [r[key] for r in b], rtol=1e-5, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 5, 10, 15, 20])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_ends_the_others_and_the_relaunch_is_exact(whole, tmp_path, victim, step):
    workdir = tmp_path / "run"
    launched = Launched(workdir, "--save_minutes=0")
    launched.wait_for(workdir / "metrics.jsonl", step)
    os.kill(launched.pids()[victim], signal.SIGKILL)
    began = time.monotonic()
    assert launched.end() in (pretraining.INTERRUPTED, 128 + signal.SIGKILL)
    assert time.monotonic() - began < GRACE
    assert re.search(rf"\[{1 - victim}\].*worker {victim} \(127.0.0.1:\d+\) has ended", launched.said())
    assert not left_of(workdir)
    again = Launched(workdir, "--save_minutes=0")
    assert again.end() == pretraining.DONE, again.said()
    assert ("continuing at step" in (workdir / "train.log").read_text()) or step == 0
    assert state(workdir) == state(whole[0])


@pytest.mark.slow
def test_a_stopped_worker_is_missed(tmp_path):
    launched = Launched(tmp_path / "run")
    launched.wait_for(tmp_path / "run" / "metrics.jsonl", 5)
    pids = launched.pids()
    os.kill(pids[1], signal.SIGSTOP)
    began = time.monotonic()
    while 0 in launched.pids() and time.monotonic() - began < 2 * GRACE:
        time.sleep(0.1)
    took = time.monotonic() - began
    os.kill(pids[1], signal.SIGKILL)
    launched.end()
    assert took < GRACE and "worker 1 (127.0.0.1" in launched.said()


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_a_signal_to_one_worker_ends_all_after_the_same_step(whole, tmp_path, told):
    workdir = tmp_path / "run"
    launched = Launched(workdir)
    launched.wait_for(workdir / "metrics.jsonl", 5)
    os.kill(launched.pids()[told], signal.SIGTERM)
    assert launched.end() == pretraining.INTERRUPTED, launched.said()
    again = Launched(workdir)
    assert again.end() == pretraining.DONE, again.said()
    assert state(workdir) == state(whole[0])


def test_one_process_is_a_team_of_one():
    team = Workers(tf.distribute.get_strategy())
    rows = np.arange(6).reshape(3, 2)
    assert (team.count, team.index, team.chief) == (1, 0, True)
    assert team.all_gather(rows) is rows and team.all_reduce_max(1, 2.5) == [1, 2.5]
    np.testing.assert_array_equal(team.shard(rows), rows)
    team.agree({"anything": 3}, "")
    assert team.lost_worker(tf.errors.UnavailableError(None, None, "/job:worker/replica:0/task:1")) is None


def test_shares_put_together_are_the_whole_and_a_lost_worker_is_named():
    team = Workers(tf.distribute.get_strategy())
    team.addresses = ["a:1", "b:2", "c:3"]
    ids, shares = np.arange(10), []
    for team.index in range(3):
        shares.append(team.shard(ids))
    np.testing.assert_array_equal(np.concatenate(shares), ids)
    error = tf.errors.UnavailableError(None, None, "from /job:worker/replica:0/task:1: connection refused")
    assert team.lost_worker(error) == "worker 1 (b:2)"
    assert team.lost_worker(tf.errors.AbortedError(None, None, "aborted")) == "another worker"
    assert team.lost_worker(tf.errors.ResourceExhaustedError(None, None, "memory")) is None


def test_a_worker_leaves_without_a_word_of_those_that_left_before(capfd, monkeypatch):
    team = Workers(tf.distribute.get_strategy())
    team.addresses = ["a:1", "b:2"]

    def complain(value):  # as TensorFlow's native code does
        os.write(2, b"E0000 Socket closed\n")
        raise tf.errors.UnavailableError(None, None, "Socket closed")

    monkeypatch.setattr(team, "all_reduce_max", complain)
    if (child := os.fork()) == 0:
        os.write(2, b"the summary\n")
        team.leave(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert capfd.readouterr().err == "the summary\n"


def test_workers_that_differ_are_told_in_what(monkeypatch):
    team = Workers(tf.distribute.get_strategy())
    team.addresses = ["a:1", "b:2"]
    other = {"`base_lr`": 0.1, "images": 5}
    text = np.frombuffer(json.dumps(other).encode(), np.uint8)

    def gather(rows):  # the second worker's is always `other`
        return np.concatenate([rows, [len(text)] if rows.dtype == np.int64 else text])

    monkeypatch.setattr(team, "all_gather", gather)
    team.agree(other, "")
    with pytest.raises(UserError, match=r"`base_lr` is 0.4 for worker 0, 0.1 for worker 1. Mend it."):
        team.agree({**other, "`base_lr`": 0.4}, "Mend it.")


def test_all_take_the_chiefs_value(monkeypatch):
    """The costs that a worker has measured itself, and what the chief has."""
    chiefs, own = [{"step": 0.1 + 0.2, "every": 7}, 1700.0], [{"step": 0.5, "every": 7}, 1600.0]
    team = Workers(tf.distribute.get_strategy())
    assert team.from_chief(own) is own
    team.addresses, team.index = ["a:1", "b:2"], 1
    text = np.frombuffer(json.dumps(chiefs).encode(), np.uint8)

    def gather(rows):
        return np.concatenate([[len(text)] if rows.dtype == np.int64 else text, rows])

    monkeypatch.setattr(team, "all_gather", gather)
    assert team.from_chief(own) == chiefs


def one_worker(index, workdir, *more):
    """Of two, started by hand."""
    cluster = {"worker": ["127.0.0.1:23461", "127.0.0.1:23462"]}
    given = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
    flags = [f for f in TINY if not f.startswith("--strategy")]
    return subprocess.Popen(
        [sys.executable, "-m", "simsiam_tf.pretrain", *flags, f"--workdir={workdir}", *more],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "TF_CONFIG": given},
    )  # fmt: skip


@pytest.mark.slow
def test_workers_started_with_other_flags_are_refused(tmp_path):
    for process in [one_worker(i, tmp_path, f"--seed={i}") for i in range(2)]:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 2, said
        assert "--seed is 0 for worker 0, 1 for worker 1" in said
    assert not (tmp_path / "config.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_a_worker_that_never_comes_is_named_and_waiting_can_be_ended(tmp_path, index):
    alone = one_worker(index, tmp_path, "--join_minutes=0.05")
    _, said = alone.communicate(timeout=60)
    assert alone.returncode == pretraining.INTERRUPTED, said
    assert f"worker {1 - index} (127.0.0.1:2346{2 - index}) did not join" in said
    alone = one_worker(index, tmp_path, "--join_minutes=5")
    time.sleep(15)  # it waits now
    alone.send_signal(signal.SIGTERM)
    _, said = alone.communicate(timeout=10)
    assert alone.returncode == pretraining.INTERRUPTED and "interrupted by SIGTERM" in said
    assert not (tmp_path / "config.json").exists()
