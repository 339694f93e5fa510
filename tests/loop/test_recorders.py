"""Recorders show a run's metrics; a new one is a row, and trouble with one never ends a run."""

import glob
import json
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers.runs import tiny

from simsiam_tf.loop import recorders
from simsiam_tf.loop.recorders import RecordedRun
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import pretraining

GRAY = np.full((8, 8, 1), 128, np.uint8)


class Toy:
    """Keeps what it is told, and fails at the second call of `scalars`."""

    made: list["Toy"] = []

    def __init__(self, run):
        self.run, self.scalars_told, self.pictures, self.texts, self.closed = run, [], [], {}, False
        Toy.made.append(self)

    def scalars(self, step, values, group):
        self.scalars_told.append((step, group, dict(values)))
        if len(self.scalars_told) in (2, 3):
            raise RuntimeError("the server is away")

    def picture(self, name, picture):
        self.pictures.append((name, picture.dtype))

    def text(self, name, text):
        self.texts[name] = text

    def close(self):
        self.closed = True


def run_of(tmp_path, rows=()):
    return RecordedRun(tmp_path, {"d": 64}, list(rows))


@pytest.mark.slow
def test_a_recorder_is_three_methods_and_a_row(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(recorders.RECORDERS, "toy", Toy)
    outcome = pretraining.pretrain(tiny(tmp_path, "--monitor=digits", "--knn_every=1", "--record=toy"))
    assert outcome.status == pretraining.DONE
    (toy,) = Toy.made
    groups = [group for _, group, _ in toy.scalars_told]
    assert groups[0] == "epoch" and groups[-1] == "final"  # the untrained backbone, then the trained one
    assert groups.count("train") == groups.count("perf") == 5
    assert toy.pictures == [("views", np.uint8)] and "--d=64" in toy.texts["options"] and toy.closed
    assert capsys.readouterr().err.count("record=toy: the server is away") == 1
    assert not (tmp_path / "metrics.jsonl").exists() and not (tmp_path / "tb").exists()
    assert len(outcome.records) == 5  # kept in memory, and diagnosed


def test_an_unknown_recorder_and_a_missing_package_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="record=tensorbord: no such recorder. Did you mean tensorboard?"):
        pretraining.pretrain(tiny(tmp_path / "a", "--record=jsonl,tensorbord"))
    monkeypatch.setattr(recorders.WandB, "package", "no_such_package_anywhere")
    with pytest.raises(
        UserError, match=r"record=wandb: needs the package .*pip install 'simsiam-tf\[wandb\]'"
    ):
        recorders.recorder_names("wandb")
    assert recorders.recorder_names("") == [] and not (tmp_path / "a").exists()


def tensorboard_values(folder):
    events = [e for f in sorted(folder.glob("events.*")) for e in tf.compat.v1.train.summary_iterator(str(f))]
    return [(e.step, value.tag) for e in events for value in e.summary.value]


def test_tensorboard_shows_all_and_makes_a_removed_file_anew(tmp_path):
    rows = [{"step": 5, "loss": -0.1}, {"step": 5, "epoch": 1, "knn20": 0.5}, {"step": 9, "loss": -0.2}]
    board = recorders.TensorBoard(run_of(tmp_path, rows))
    board.scalars(9, rows[-1], "train")
    board.picture("views", GRAY)
    board.text("options", "--d=64")
    board._writer.flush()
    assert tensorboard_values(tmp_path / "tb") == [(9, "train/loss"), (0, "views"), (0, "options")]
    for file in (tmp_path / "tb").iterdir():
        file.unlink()
    board.scalars(9, rows[-1], "train")
    board.close()
    expected = [(5, "train/loss"), (5, "eval/knn20"), (9, "train/loss")]
    assert tensorboard_values(tmp_path / "tb") == expected


def test_tensorboard_makes_its_file_anew_beside_that_of_an_earlier_process(tmp_path):
    (tmp_path / "tb").mkdir()
    older = tmp_path / "tb" / "events.out.tfevents.1.host"
    older.touch()
    rows = [{"step": 5, "loss": -0.1}, {"step": 9, "loss": -0.2}]
    board = recorders.TensorBoard(run_of(tmp_path, rows))
    for file in set((tmp_path / "tb").iterdir()) - {older}:
        file.unlink()
    board.scalars(9, rows[-1], "train")
    board.close()
    assert tensorboard_values(tmp_path / "tb") == [(5, "train/loss"), (9, "train/loss")]


def test_wandb_offline_keeps_the_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    recorder = recorders.WandB(run_of(tmp_path))
    recorder.scalars(5, {"loss": -0.25}, "train")
    recorder.scalars(5, {"epoch": 1, "knn20": 0.5}, "epoch")
    recorder.picture("views", GRAY)
    recorder.text("diagnosis", "healthy")
    recorder.close()
    (file,) = glob.glob(f"{tmp_path}/wandb/offline-run-*/run-*.wandb")
    words, end = (b"train/loss", b"-0.25", b"eval/knn20", b"views", b"healthy"), time.monotonic() + 20
    while missing := [word for word in words if word not in Path(file).read_bytes()]:
        assert time.monotonic() < end, missing  # another process writes it
        time.sleep(0.1)


def test_mlflow_keeps_the_run_in_its_folder_and_continues_it(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for step in (5, 10):  # two processes of one run
        recorder = recorders.MLflow(run_of(tmp_path))
        recorder.scalars(step, {"loss": -step / 10}, "train")
        recorder.picture("views", GRAY)
        recorder.text("diagnosis", "healthy")
        recorder.close()
    client = mlflow.MlflowClient(tracking_uri=recorder._client.tracking_uri)
    (experiment,) = (e for e in client.search_experiments() if e.name == "simsiam_tf")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params == {"d": "64"} and run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(5, -0.5), (10, -1.0)]
    assert {a.path for a in client.list_artifacts(run.info.run_id)} >= {"views.png", "diagnosis.txt"}


@pytest.mark.slow
def test_metrics_jsonl_left_out_changes_no_weight(tmp_path):
    digests = []
    for name, record in (("all", "tensorboard,jsonl"), ("none", "")):
        workdir = tmp_path / name
        outcome = pretraining.pretrain(tiny(workdir, "--monitor=none", f"--record={record}"))
        assert outcome.status == pretraining.DONE
        (newest, *_) = sorted((workdir / "checkpoints").iterdir(), reverse=True)
        digests.append(
            json.loads((newest / "manifest.json").read_text())["files"]["state.data-00000-of-00001"]
        )
    assert digests[0] == digests[1]
