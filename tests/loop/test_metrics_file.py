"""metrics.jsonl: what is lost, cut or changed is noticed, and a full disk tears no line."""

import json
import logging
import os

import pytest

from simsiam_tf.loop.metrics_file import MetricsFile


def written(tmp_path, steps):
    records = MetricsFile(tmp_path / "metrics.jsonl")
    records.rewind(-1)
    for step in steps:
        records.scalars(step, {"loss": step / 10}, "train")
    return records, records.digest()


def test_records_are_appended_and_mended(tmp_path):
    records, _ = written(tmp_path, (1, 2))
    file = tmp_path / "metrics.jsonl"
    file.unlink()
    records.scalars(3, {"loss": 0.3}, "train")
    file.write_text("cut")
    records.scalars(4, {"loss": 0.4}, "train")
    records.sync()
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2, 3, 4]
    assert records.digest()["bytes"] == file.stat().st_size


def test_a_full_disk_neither_tears_a_line_nor_rewrites_the_file(tmp_path, monkeypatch):
    records, _ = written(tmp_path, (1, 2))
    file, write, before = tmp_path / "metrics.jsonl", os.write, (tmp_path / "metrics.jsonl").stat()
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:5]))
    with pytest.raises(OSError, match="No space left"):
        records.scalars(3, {"loss": 0.3}, "train")
    assert file.stat().st_size == before.st_size
    monkeypatch.undo()
    records.scalars(4, {"loss": 0.4}, "train")
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2, 3, 4]
    assert file.stat().st_ino == before.st_ino, "the whole file was written again"


@pytest.mark.parametrize("change", ["removed", "emptied", "cut", "changed", "none", "longer", "a line less"])
def test_records_that_are_not_as_they_were_are_noticed(tmp_path, change, caplog, monkeypatch):
    _, known = written(tmp_path, range(1, 6))
    file = tmp_path / "metrics.jsonl"
    text = file.read_text()
    lines = text.splitlines(keepends=True)
    changes = {
        "emptied": "", "cut": text[:-9], "changed": text.replace("0.3", "0.8"), "none": text,
        "longer": text + '{"step": 6, "loss": 1}\n{"st', "a line less": "".join(lines[:2] + lines[3:]),
    }  # fmt: skip
    file.unlink() if change == "removed" else file.write_text(changes[change])
    monkeypatch.setattr(logging.getLogger("simsiam_tf"), "propagate", True)
    records = MetricsFile(file)
    records.rewind(5, digest=known)
    assert bool(caplog.messages) == (change not in ("none", "longer"))
    if caplog.messages:
        assert (
            "metrics.jsonl was removed, cut or changed after the checkpoint of step 5 was made"
            in caplog.messages[0]
        )
    else:
        assert [r["step"] for r in records.rows] == [1, 2, 3, 4, 5] and file.read_text() == text


def test_a_final_evaluation_that_is_made_again_is_recorded_once(tmp_path):
    records, _ = written(tmp_path, (1, 2))
    records.scalars(2, {"epoch": 1, "knn20": 0.5}, "epoch")
    records.scalars(2, {"images": "all", "knn20": 0.6}, "final")
    again = MetricsFile(records.file)
    again.rewind(2)
    assert len(again.rows) == 4
    again.rewind(2, evaluated=False)
    assert len(again.rows) == 3 and "epoch" in again.rows[2]
