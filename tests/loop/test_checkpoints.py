"""A commit is whole or not there; damage is passed over, never silently started afresh from."""

import json
import logging

import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf.loop.checkpoints import MANIFEST_BYTES, Checkpoints, newest_manifest
from simsiam_tf.runtime.errors import UserError


@pytest.fixture
def commits(tmp_path):
    value = tf.Variable([0.0, 0.0])
    return Checkpoints(tmp_path / "checkpoints", {"value": value}, keep=2), value


def save(commits, value, *steps):
    for step in steps:
        value.assign([step, step])
        commits.save(step, {"note": step})


def test_the_newest_is_restored_and_only_kept_ones_remain(commits):
    commits, value = commits
    save(commits, value, 1, 2, 3)
    value.assign([9.0, 9.0])
    manifest = commits.restore()
    assert manifest["step"] == 3 and manifest["extra"] == {"note": 3}
    assert value.numpy().tolist() == [3, 3]
    assert commits.steps() == [3, 2]


@pytest.mark.parametrize("part", ["state.index", "state.data-00000-of-00001", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_newest_falls_back_to_the_one_before(commits, part, damage, caplog):
    commits, value = commits
    save(commits, value, 1, 2)
    path = commits.folder / "step-00000002" / part
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 64
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.unlink()
    manifest = commits.restore()
    if part == "manifest.json" and damage == "flip" and manifest["step"] == 2:
        assert json.loads(path.read_text())["files"]  # the flip left every digest right
    else:
        assert manifest["step"] == 1 and value.numpy().tolist() == [1, 1]


def test_only_damaged_commits_are_an_error_not_a_fresh_start(commits):
    commits, value = commits
    assert commits.restore() is None
    save(commits, value, 1)
    (commits.folder / "step-00000001" / "state.index").write_bytes(b"")
    with pytest.raises(UserError, match="none of its 1 checkpoints is whole"):
        commits.restore()


def test_a_manifest_that_names_files_elsewhere_is_not_followed(commits):
    commits, value = commits
    save(commits, value, 1, 2)
    path = commits.folder / "step-00000002" / "manifest.json"
    manifest = json.loads(path.read_text())
    before = json.loads((commits.folder / "step-00000001" / "manifest.json").read_text())
    del manifest["files"]["state.index"]
    manifest["files"]["../step-00000001/state.index"] = before["files"]["state.index"]  # its digest is right
    path.write_text(json.dumps(manifest))
    assert commits.restore()["step"] == 1


def test_leftovers_of_a_crash_are_swept(commits):
    commits, value = commits
    leftover = commits.folder / ".writing-00000007"
    leftover.mkdir()
    (leftover / "state.index").write_bytes(b"half")
    again = Checkpoints(commits.folder, {"value": value})
    assert not leftover.exists() and again.steps() == []


def test_what_was_written_wrongly_is_noticed_before_it_counts(commits, monkeypatch):
    commits, value = commits
    save(commits, value, 1)
    write = commits.checkpoint.write

    def faulty(prefix):
        write(prefix)
        data = commits.folder / ".writing-00000002" / "state.data-00000-of-00001"
        data.write_bytes(bytes(b ^ 1 for b in data.read_bytes()))

    monkeypatch.setattr(commits.checkpoint, "write", faulty)
    with pytest.raises(tf.errors.OpError, match="Checksum"):
        save(commits, value, 2)
    assert commits.steps() == [1] and not list(commits.folder.glob(".writing-*"))
    assert commits.restore()["step"] == 1


def test_a_damaged_commit_is_made_again_when_its_step_comes_again(commits):
    commits, value = commits
    save(commits, value, 1, 2)
    (commits.folder / "step-00000002" / "state.index").write_bytes(b"")
    save(commits, value, 2)
    assert commits.restore()["step"] == 2 and not list(commits.folder.glob(".removing-*"))


def test_the_manifest_tells_whose_it_is(tmp_path):
    commits = Checkpoints(tmp_path, {"value": tf.Variable(1.0)}, about={"configuration": {"d": 64}})
    assert newest_manifest(tmp_path) is None
    commits.save(5, {})
    assert newest_manifest(tmp_path)["configuration"] == {"d": 64}


class Disk:
    """A disk with room for so many commits, of which a write takes one more while it lasts."""

    def __init__(self, commits, monkeypatch, room):
        self.commits, self.room, write = commits, room, commits.checkpoint.write

        def limited(prefix):
            if len(commits.steps()) >= self.room:
                raise tf.errors.ResourceExhaustedError(None, None, "state.data; No space left on device")
            write(prefix)

        monkeypatch.setattr(commits.checkpoint, "write", limited)


def test_where_two_commits_fit_and_no_third_the_oldest_makes_room(commits, monkeypatch, caplog):
    commits, value = commits
    monkeypatch.setattr(logging.getLogger("simsiam_tf"), "propagate", True)
    disk = Disk(commits, monkeypatch, room=2)
    save(commits, value, 1, 2, 3, 4)
    assert commits.steps() == [4, 3] and commits.restore()["step"] == 4
    assert "no room for the checkpoint of step 4: that of 2 is removed" in caplog.messages[-1]
    disk.room = 0
    with pytest.raises(tf.errors.ResourceExhaustedError):  # the newest stays, whatever happens
        save(commits, value, 5)
    assert commits.steps() == [4] and commits.restore()["step"] == 4


def test_the_oldest_stays_where_the_newest_is_damaged_or_room_is_not_the_trouble(commits, monkeypatch):
    commits, value = commits
    save(commits, value, 1, 2)
    (commits.folder / "step-00000002" / "state.index").write_bytes(b"")
    Disk(commits, monkeypatch, room=2)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        save(commits, value, 3)
    assert commits.steps() == [2, 1] and commits.restore()["step"] == 1

    def refused(prefix):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(commits.checkpoint, "write", refused)
    with pytest.raises(PermissionError):
        save(commits, value, 3)
    assert commits.steps() == [2, 1]


def test_steps_without_a_record_are_kept_whatever_their_number(commits):
    commits, value = commits
    interval = np.random.default_rng(0).normal(size=(400_000, 2))
    value.assign([1, 1])
    commits.save(1, {}, interval)
    np.testing.assert_array_equal(commits.restore()["interval"], interval)
    commits.save(2, {}, np.zeros((0, 2)))
    assert commits.restore()["interval"].shape == (0, 2)


def test_what_restore_would_refuse_is_not_written(commits):
    commits, value = commits
    save(commits, value, 1)
    with pytest.raises(OSError, match="manifest has .* bytes"):
        commits.save(2, {"note": "x" * MANIFEST_BYTES})
    assert commits.steps() == [1] and not list(commits.folder.glob(".writing-*"))


def test_links_among_leftovers_are_removed_and_not_followed(commits, tmp_path):
    commits, value = commits
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").write_text("mine")
    for name in (".writing-00000001", ".removing-00000001"):
        (commits.folder / name).symlink_to(tmp_path / "elsewhere")
    save(commits, value, 1, 2, 3)
    Checkpoints(commits.folder, {"value": value})
    assert (tmp_path / "elsewhere" / "mine").exists() and commits.steps() == [3, 2]
    (tmp_path / "link").symlink_to(commits.folder)
    with pytest.raises(UserError, match="is a link"):
        Checkpoints(tmp_path / "link", {"value": value})
