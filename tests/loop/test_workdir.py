"""A work folder: whose it is, what in it may be written, and that its records are noticed to be the same."""

import errno
import logging
import os
import shlex
import subprocess
import sys
import types

import filelock
import numpy as np
import pytest
from helpers.runs import TINY

from simsiam_tf.command_line import cli
from simsiam_tf.config import LinearConfig, PretrainConfig
from simsiam_tf.evaluate.diagnosis import Diagnosis
from simsiam_tf.loop.metrics_file import MetricsFile
from simsiam_tf.loop.metrics_log import MetricsLog
from simsiam_tf.loop.workdir import FILES, FOLDERS, Workdir
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import run_summary
from simsiam_tf.training.pretraining import DONE, INTERRUPTED, Outcome


def tiny(workdir, *more):
    return cli.parse(PretrainConfig, [*TINY, f"--workdir={workdir}", *more])


def made(path, *more, metadata=None):
    """A work folder that belongs to a configuration."""
    workdir = Workdir(path)
    workdir.bind(tiny(path, *more), metadata or {})
    workdir.release()
    return path


@pytest.mark.parametrize("name", FILES)
def test_a_link_for_a_file_is_refused_and_not_written_through(tmp_path, name):
    victim, folder = tmp_path / "victim", tmp_path / "run"
    victim.write_text("mine")
    folder.mkdir()
    (folder / name).symlink_to(victim)
    with pytest.raises(UserError, match=f"{name}: is a link, which is not followed. Remove it"):
        Workdir(folder)
    assert victim.read_text() == "mine" and os.listdir(folder) == [name]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_link_for_a_folder_is_refused_and_nothing_swept_behind_it(tmp_path, name):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "run"
    (elsewhere / ".writing-00000001").mkdir(parents=True)
    (elsewhere / "writing.keras").write_text("mine")
    folder.mkdir()
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(UserError, match=f"{name}: is a link"):
        Workdir(folder)
    assert sorted(os.listdir(elsewhere)) == [".writing-00000001", "writing.keras"]


def test_another_file_in_the_lock_s_place_is_kept(tmp_path):
    (tmp_path / ".lock").write_text("a letter that somebody has written, of more than a line")
    with pytest.raises(UserError, match="is not the lock of a run"):
        Workdir(tmp_path)
    assert (tmp_path / ".lock").read_text().startswith("a letter")


HOLD = """
import sys, time
from simsiam_tf.loop.workdir import Workdir
workdir = Workdir(sys.argv[1])
print("locked", flush=True)
time.sleep(100)
"""


def test_a_lock_is_seen_by_another_process_and_ends_with_its_own_even_if_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "locked\n"
        for _ in range(2):  # the refused one leaves the lock and the number in it
            with pytest.raises(UserError, match=f"in use by process {holder.pid}. Wait for it"):
                Workdir(tmp_path)
    finally:
        holder.kill()
        holder.communicate()
    Workdir(tmp_path).release()
    Workdir(tmp_path).release()


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.raises(UserError, match=r"cannot be written and locked \(No locks available\)"):
        Workdir(tmp_path)


def test_a_link_put_in_the_log_s_place_during_the_run_is_not_followed(tmp_path):
    victim, folder = tmp_path / "victim", tmp_path / "run"
    victim.write_text("mine")
    workdir = Workdir(folder)
    try:
        workdir.bind(tiny(folder), {})
        for name in ("train.log", "metrics.jsonl"):
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(victim)
        logging.getLogger("simsiam_tf").info("a line")
        records = MetricsFile(folder / "metrics.jsonl")
        records.scalars(5, {"loss": 1.0}, "train")
        records.scalars(6, {"loss": 1.0}, "train")
    finally:
        workdir.release()
    assert victim.read_text() == "mine"


def test_a_work_folder_may_be_a_link_itself(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    assert (made(tmp_path / "run") / "config.flags").exists()


def test_only_leftovers_of_its_own_are_swept(tmp_path):
    (tmp_path / "draft.tmp").write_text("mine")
    (tmp_path / "export").mkdir()
    leftovers = [tmp_path / name for name in (".writing-7-ab.tmp", "export/.writing-7-ab.tmp")]
    for path in leftovers:
        path.write_text("half")
    made(tmp_path)
    assert (tmp_path / "draft.tmp").exists() and not any(path.exists() for path in leftovers)


def test_another_number_of_epochs_is_told_how_to_train_longer(tmp_path):
    folder = made(tmp_path / "my run")
    workdir = Workdir(folder)
    own = rf"`epochs` was 1.0, is 2.0\..*flagfile='{folder}/config.flags'"
    longer = rf"{own}\. To train longer.*weights='{folder}'"
    with pytest.raises(UserError, match=longer):
        workdir.check_config(tiny(folder, "--epochs=2"))
    with pytest.raises(UserError) as other:
        workdir.check_config(tiny(folder, "--epochs=2", "--d=32"))
    assert "longer" not in str(other.value)
    workdir.release()


def test_the_monitor_can_be_dropped_and_no_other_be_taken(tmp_path):
    workdir = Workdir(made(tmp_path, "--monitor=digits", "--monitor_queries=digits:test", "--knn_every=3"))
    workdir.check_config(tiny(tmp_path, "--monitor=none"))
    workdir.check_config(
        tiny(tmp_path, "--monitor=digits", "--monitor_queries=digits:test", "--final_images=0")
    )
    with pytest.raises(UserError, match="`monitor` was digits, is fashion_mnist"):
        workdir.check_config(tiny(tmp_path, "--monitor=fashion_mnist", "--monitor_queries=digits:test"))
    workdir.release()


def test_a_folder_of_images_binds_by_what_is_in_it_not_by_where_it_lies(tmp_path):
    metadata = {"fingerprint": "a1"}
    workdir = Workdir(made(tmp_path, "--data=folder:/here/photos", "--weights=/here/run", metadata=metadata))
    moved = tiny(tmp_path, "--data=folder:/there/photos", "--weights=/there/run")
    workdir.check_config(moved, metadata)
    with pytest.raises(UserError, match="fingerprint was a1, is b2"):
        workdir.check_config(moved, {"fingerprint": "b2"})
    with pytest.raises(UserError, match="`data` was folder:/here/photos, is digits"):
        workdir.check_config(tiny(tmp_path, "--weights=/there/run"))
    with pytest.raises(UserError, match="`weights` was /here/run, is None"):
        workdir.check_config(tiny(tmp_path, "--data=folder:/there/photos"))
    workdir.release()


def test_paths_are_made_absolute_where_a_run_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = tiny("runs/a", "--data=folder:photos", "--monitor=digits", "--weights=~/b.keras").absolute()
    assert (found.workdir, found.data) == (f"{tmp_path}/runs/a", f"folder:{tmp_path}/photos")
    assert (found.monitor, found.weights) == ("digits", os.path.expanduser("~/b.keras"))
    assert tiny("a", "--data=folder:").absolute().data == "folder:"


def test_the_flagfile_of_a_moved_folder_means_the_folder_where_it_lies(tmp_path, capsys, monkeypatch):
    made(tmp_path / "old").rename(tmp_path / "new")
    flagfile = f"--flagfile={tmp_path}/new/config.flags"
    assert cli.parse(PretrainConfig, [flagfile]).workdir == str(tmp_path / "new")
    said = capsys.readouterr().err
    assert f"--workdir={tmp_path}/old" in said and f"{tmp_path}/new, where it is" in said
    made(tmp_path / "old")  # another run in the old place
    assert cli.parse(PretrainConfig, [flagfile]).workdir == str(tmp_path / "new")
    assert cli.parse(PretrainConfig, [flagfile, "--workdir=x"]).workdir == "x"
    capsys.readouterr()
    (tmp_path / "link").symlink_to(tmp_path / "old")
    linked = f"--flagfile={tmp_path}/link/config.flags"
    assert cli.parse(PretrainConfig, [linked]).workdir == f"{tmp_path}/old"
    assert capsys.readouterr().err == ""
    (tmp_path / "config.flags").write_text("--workdir=runs/template\n")  # of no run
    assert cli.parse(PretrainConfig, [f"--flagfile={tmp_path}/config.flags"]).workdir == "runs/template"


@pytest.mark.parametrize("value", ["a\nb", "a\u2028b", "a ", "\ta"])
def test_a_path_that_a_flagfile_could_not_hold_is_refused(value):
    with pytest.raises(UserError, match="workdir=.*begins or ends with a space or has a line break"):
        tiny(value)
    with pytest.raises(UserError, match="data=.*line break"):
        cli.parse(LinearConfig, [f"--data=folder:x{value}x\n", "--weights=x"])


def test_names_that_are_no_text_come_back_from_the_flagfile(tmp_path):
    given = tiny(tmp_path, "--data=folder:" + os.fsdecode(b"/caf\xe9"))
    workdir = Workdir(tmp_path)
    workdir.bind(given, {})
    workdir.release()
    assert cli.parse(PretrainConfig, [f"--flagfile={tmp_path}/config.flags"]) == given


def test_commands_that_are_shown_are_quoted_for_a_shell(tmp_path):
    folder = tmp_path / "a $(touch x) b"
    ended = Outcome(INTERRUPTED, 3, Diagnosis("healthy", ""), {}, folder, [])
    for text in (
        run_summary.pretraining_summary(tiny("x"), ended),
        run_summary.supervised_summary(ended, "simsiam_tf.finetune"),
    ):
        (command,) = (line for line in text.splitlines() if "config.flags" in line)
        assert shlex.split(command)[-1] == f"--flagfile={folder}/config.flags"
    assert f"--logdir='{folder}/tb'" in run_summary.pretraining_summary(tiny("x"), ended)


@pytest.mark.parametrize("record", ["tensorboard", "jsonl", "tensorboard,jsonl"])
def test_the_summary_names_records_that_are_kept(tmp_path, record):
    ended = Outcome(DONE, 3, Diagnosis("healthy", ""), {}, tmp_path, [])
    said = run_summary.pretraining_summary(tiny("x", f"--record={record}"), ended)
    assert ("metrics.jsonl" in said) == ("jsonl" in record)
    assert ("--logdir=" in said) == ("tensorboard" in record)


@pytest.mark.slow
def test_warnings_of_other_workers_reach_the_terminal_but_what_the_first_one_says(tmp_path):
    code = f"""
import logging
from simsiam_tf.loop.workdir import Workdir
Workdir({str(tmp_path / "run")!r}, writes=False)
logging.getLogger("simsiam_tf").warning("Asking again")
logging.getLogger("simsiam_tf.run").warning("epoch 1")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "Asking again" in done.stderr and "epoch 1" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_log_names_options_as_one_types_them(tmp_path, capsys):
    workdir = Workdir(tmp_path)
    log = logging.getLogger("simsiam_tf.run")
    log.warning("before: `base_lr`, %s", "warmup_epochs=1")  # the options are not known yet
    workdir.bind(tiny(tmp_path), {})
    log.warning("Try a lower `base_lr`, or %s; `nothing` in runs/base_lr=3", "warmup_epochs=1")
    workdir.release()
    said, logged = capsys.readouterr().err, (tmp_path / "train.log").read_text()
    for text in (said, logged):
        assert "Try a lower --base_lr, or --warmup_epochs=1; `nothing` in runs/base_lr=3\n" in text
        assert "before: `base_lr`, warmup_epochs=1\n" in text


class Shown:
    """A bar that keeps what it is told."""

    def __init__(self):
        self.postfix = {}

    def set_postfix(self, shown, refresh):
        self.postfix = shown

    def update(self, count):
        pass

    def unpause(self):
        pass

    disable, n = True, 0


def test_the_bar_says_of_which_step_an_accuracy_is(tmp_path):
    """That of untrained weights is none of the run's."""
    kinds = {"metric_label": "std·√d", "evaluation_name": "knn20", "evaluation_label": "kNN"}
    healthy = Diagnosis("healthy", "")
    log = MetricsLog.__new__(MetricsLog)
    vars(log).update(
        task=types.SimpleNamespace(**kinds, diagnose=lambda records, evaluation: healthy), interval=[],
        _bar=Shown(), _seconds=0, _waited=0, _steps=0, _started=False, _recorders={}, records=[],
        accuracy={}, diagnosis=healthy, _evaluated_step=0,
    )  # fmt: skip
    rows = np.array([[-0.5, 0.9, 0.0]])
    log.add_evaluation(0, 0, {"knn20": 0.8})
    log.add_steps(rows, 1.0)
    assert log._bar.postfix == {"loss": "-0.500", "std·√d": "0.90"}
    log.add_evaluation(940, 2, {"knn20": 0.85})
    log.add_steps(rows, 1.0)
    assert log._bar.postfix == {"loss": "-0.500", "std·√d": "0.90", "kNN at step 940": "85.0%"}
