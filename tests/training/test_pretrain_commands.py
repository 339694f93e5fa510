"""What ends or replaces a run: a preview, a dry run, a file that is cut off, a signal."""

import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.runs import TINY, tiny

from simsiam_tf.config import PretrainConfig
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import inspection, pretraining


def test_preview_and_dry_run_train_nothing(tmp_path, capsys):
    config = tiny(tmp_path)
    assert inspection.write_preview(config) == 0
    assert (tmp_path / "preview.png").read_bytes()[:4] == b"\x89PNG"
    assert "preview.png: in each row" in capsys.readouterr().out
    assert inspection.dry_run(dataclasses.replace(config, dry_run=True)) == 0
    text = capsys.readouterr().out
    assert "--backbone=resnet10" in text and "steps                  22" in text
    lines = [line for line in text.splitlines() if not line.endswith("views")]
    subjects = [line[:22].strip() for line in lines[: lines.index("")]]
    assert subjects[:6] == ["images", "labels", "network", "views", "steps", "time"]
    assert "10 classes (0, 1, 2, 3, …), which only the monitor uses" in text
    flags = [line for line in lines if line.startswith("--")]
    assert len(flags) < 20 and not any(line.startswith("--weight_decay") for line in flags), "a default"
    assert lines.index(flags[0]) > len(subjects)
    assert not (tmp_path / "checkpoints").exists()


def test_a_preview_without_a_work_folder_goes_to_that_of_the_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = dataclasses.replace(tiny(tmp_path), workdir=None)
    assert inspection.write_preview(config) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("runs/digits-resnet10/preview.png: in each row an image of digits")
    assert len(said) == 9 and said[1].startswith("  row 1  image ")
    assert [str(p) for p in Path().rglob("*.png")] == ["runs/digits-resnet10/preview.png"]


def test_the_default_work_folder_names_the_method_that_was_chosen():
    given = PretrainConfig(data="folder:/my/photos", backbone="resnet18")
    names = {
        "runs/folder-my-photos-resnet18": {},
        "runs/folder-my-photos-resnet18-byol": {"method": "byol"},
        "runs/folder-my-photos-auto": {"recipe": "auto"},
        "runs/folder-my-photos-auto-simsiam": {"recipe": "auto", "given": "method"},
    }
    for name, changes in names.items():
        assert inspection.with_workdir(dataclasses.replace(given, **changes)).workdir == name


@pytest.mark.slow
def test_a_preview_takes_fewer_images_than_a_batch(tmp_path):
    for i in range(3):
        keras.utils.save_img(tmp_path / f"{i}.png", np.full([8, 8, 3], 80 * i))
    config = tiny(tmp_path, f"--data=folder:{tmp_path}", "--monitor=none")
    assert config.batch_size > 3 and inspection.write_preview(config) == 0
    (tmp_path / "bad.png").write_text("no picture")  # of which a preview draws nothing
    assert inspection.write_preview(config) == 0
    with pytest.raises(UserError, match="batch_size"):
        inspection.dry_run(config)


@pytest.mark.slow
@pytest.mark.parametrize("look", [inspection.write_preview, inspection.dry_run])
def test_a_recipe_is_followed_for_images_of_any_kind(tmp_path, monkeypatch, look):
    """Only images that are files can be unreadable, and be skipped."""

    class Followed(Exception):
        pass

    def follow_recipe(config, *args, **options):
        assert config.validate().on_bad_image == ("error" if config.data == "digits" else "skip")
        raise Followed

    monkeypatch.setattr(inspection, "follow_recipe", follow_recipe)
    for data in ("digits", f"folder:{tmp_path}"):
        with pytest.raises(Followed):
            look(tiny(tmp_path, f"--data={data}", "--recipe=auto", "--monitor=none"))


class CutAt(keras.callbacks.Callback):
    """Cuts a file off at a step."""

    def __init__(self, file, step):
        super().__init__()
        self.file, self.step = file, step

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 == self.step:
            self.file.write_bytes(self.file.read_bytes()[:40])


@pytest.mark.slow
def test_a_run_that_a_cut_file_ended_is_continued_without_it(tmp_path):
    images, workdir = tmp_path / "images", tmp_path / "run"
    images.mkdir()
    for i in range(32):
        keras.utils.save_img(images / f"{i:02d}.png", np.random.default_rng(i).random([8, 8, 3]))
    argv = [f"--data=folder:{images}", "--batch_size=16", "--monitor=none", "--epochs=20", "--image_size=8"]
    with pytest.raises(UserError, match=r"07.png: changed since.* With on_bad_image=skip the next image"):
        pretraining.pretrain(tiny(workdir, *argv), callbacks=[CutAt(images / "07.png", 4)])
    outcome = pretraining.pretrain(tiny(workdir, *argv, "--on_bad_image=skip"))
    assert outcome.status == 0


def test_the_command_line_commits_on_sigterm(tmp_path):
    command = [sys.executable, "-m", "simsiam_tf.pretrain", *TINY, f"--workdir={tmp_path}", "--epochs=500"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and '"loss"' not in _read(tmp_path / "metrics.jsonl"):
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == pretraining.INTERRUPTED, err
    assert f"--flagfile={tmp_path}/config.flags" in out
    steps = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert steps and int(steps[-1].split("-")[1]) > 0


def _read(path):
    return path.read_text() if path.exists() else ""
