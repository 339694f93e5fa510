"""A checkpoint is whole or not there; damage is passed over, never silently started afresh from."""

import json
import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf.loop.checkpoints import MANIFEST_BYTES, Checkpoints, newest_manifest, untracked
from simsiam_tf.runtime.errors import UserError


@pytest.fixture
def checkpoints(tmp_path):
    value = tf.Variable([0.0, 0.0])
    return Checkpoints(tmp_path / "checkpoints", {"value": value}, keep=2), value


def save(checkpoints, value, *steps):
    for step in steps:
        value.assign([step, step])
        checkpoints.save(step, {"note": step})


def test_the_newest_is_restored_and_only_kept_ones_remain(checkpoints):
    checkpoints, value = checkpoints
    save(checkpoints, value, 1, 2, 3)
    value.assign([9.0, 9.0])
    manifest = checkpoints.restore()
    assert manifest["step"] == 3 and manifest["progress"] == {"note": 3}
    assert value.numpy().tolist() == [3, 3]
    assert checkpoints.steps() == [3, 2]


@pytest.mark.parametrize("part", ["state.index", "state.data-00000-of-00001", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_newest_falls_back_to_the_one_before(checkpoints, part, damage, caplog):
    checkpoints, value = checkpoints
    save(checkpoints, value, 1, 2)
    path = checkpoints.folder / "step-00000002" / part
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 64
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.unlink()
    manifest = checkpoints.restore()
    if part == "manifest.json" and damage == "flip" and manifest["step"] == 2:
        assert json.loads(path.read_text())["files"]  # the flip left every digest right
    else:
        assert manifest["step"] == 1 and value.numpy().tolist() == [1, 1]


def test_only_damaged_checkpoints_are_an_error_not_a_fresh_start(checkpoints):
    checkpoints, value = checkpoints
    assert checkpoints.restore() is None
    save(checkpoints, value, 1)
    (checkpoints.folder / "step-00000001" / "state.index").write_bytes(b"")
    with pytest.raises(UserError, match="none of its 1 checkpoints is whole"):
        checkpoints.restore()


def test_a_manifest_that_names_files_elsewhere_is_not_followed(checkpoints):
    checkpoints, value = checkpoints
    save(checkpoints, value, 1, 2)
    path = checkpoints.folder / "step-00000002" / "manifest.json"
    manifest = json.loads(path.read_text())
    before = json.loads((checkpoints.folder / "step-00000001" / "manifest.json").read_text())
    del manifest["files"]["state.index"]
    manifest["files"]["../step-00000001/state.index"] = before["files"]["state.index"]  # its digest is right
    path.write_text(json.dumps(manifest))
    assert checkpoints.restore()["step"] == 1


def test_leftovers_of_a_crash_are_swept(checkpoints):
    checkpoints, value = checkpoints
    leftover = checkpoints.folder / ".writing-00000007"
    leftover.mkdir()
    (leftover / "state.index").write_bytes(b"half")
    again = Checkpoints(checkpoints.folder, {"value": value})
    assert not leftover.exists() and again.steps() == []


def test_what_was_written_wrongly_is_noticed_before_it_counts(checkpoints, monkeypatch):
    checkpoints, value = checkpoints
    save(checkpoints, value, 1)
    write = checkpoints.checkpoint.write

    def faulty(prefix):
        write(prefix)
        data = checkpoints.folder / ".writing-00000002" / "state.data-00000-of-00001"
        data.write_bytes(bytes(b ^ 1 for b in data.read_bytes()))

    monkeypatch.setattr(checkpoints.checkpoint, "write", faulty)
    with pytest.raises(tf.errors.OpError, match="Checksum"):
        save(checkpoints, value, 2)
    assert checkpoints.steps() == [1] and not list(checkpoints.folder.glob(".writing-*"))
    assert checkpoints.restore()["step"] == 1


def test_a_damaged_checkpoints_is_made_again_when_its_step_comes_again(checkpoints):
    checkpoints, value = checkpoints
    save(checkpoints, value, 1, 2)
    (checkpoints.folder / "step-00000002" / "state.index").write_bytes(b"")
    save(checkpoints, value, 2)
    assert checkpoints.restore()["step"] == 2 and not list(checkpoints.folder.glob(".removing-*"))


def test_the_manifest_tells_whose_it_is(tmp_path):
    checkpoints = Checkpoints(tmp_path, {"value": tf.Variable(1.0)}, about={"configuration": {"d": 64}})
    assert newest_manifest(tmp_path) is None
    checkpoints.save(5, {})
    assert newest_manifest(tmp_path)["configuration"] == {"d": 64}


class Disk:
    """A disk with room for so many checkpoints, of which a write takes one more while it lasts."""

    def __init__(self, checkpoints, monkeypatch, room):
        self.checkpoints, self.room, write = checkpoints, room, checkpoints.checkpoint.write

        def limited(prefix):
            if len(checkpoints.steps()) >= self.room:
                raise tf.errors.ResourceExhaustedError(None, None, "state.data; No space left on device")
            write(prefix)

        monkeypatch.setattr(checkpoints.checkpoint, "write", limited)


def test_where_two_checkpoints_fit_and_no_third_the_oldest_makes_room(checkpoints, monkeypatch, caplog):
    checkpoints, value = checkpoints
    monkeypatch.setattr(logging.getLogger("simsiam_tf"), "propagate", True)
    disk = Disk(checkpoints, monkeypatch, room=2)
    save(checkpoints, value, 1, 2, 3, 4)
    assert checkpoints.steps() == [4, 3] and checkpoints.restore()["step"] == 4
    assert "no room for the checkpoint of step 4: that of 2 is removed" in caplog.messages[-1]
    disk.room = 0
    with pytest.raises(tf.errors.ResourceExhaustedError):  # the newest stays, whatever happens
        save(checkpoints, value, 5)
    assert checkpoints.steps() == [4] and checkpoints.restore()["step"] == 4


def test_the_oldest_stays_where_the_newest_is_damaged_or_room_is_not_the_trouble(checkpoints, monkeypatch):
    checkpoints, value = checkpoints
    save(checkpoints, value, 1, 2)
    (checkpoints.folder / "step-00000002" / "state.index").write_bytes(b"")
    Disk(checkpoints, monkeypatch, room=2)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        save(checkpoints, value, 3)
    assert checkpoints.steps() == [2, 1] and checkpoints.restore()["step"] == 1

    def refused(prefix):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checkpoints.checkpoint, "write", refused)
    with pytest.raises(PermissionError):
        save(checkpoints, value, 3)
    assert checkpoints.steps() == [2, 1]


def test_steps_without_a_record_are_kept_whatever_their_number(tmp_path):
    interval = tf.Variable(tf.zeros([0, 2], tf.float64), shape=(None, 2))
    checkpoints = Checkpoints(tmp_path, {"interval": interval})
    for step, count in ((1, 400_000), (2, 0)):
        values = np.random.default_rng(0).normal(size=(count, 2))
        interval.assign(values)
        checkpoints.save(step, {})
        interval.assign(tf.ones([3, 2], tf.float64))
        assert checkpoints.restore()["step"] == step
        np.testing.assert_array_equal(interval, values)


def test_what_restore_would_refuse_is_not_written(checkpoints):
    checkpoints, value = checkpoints
    save(checkpoints, value, 1)
    with pytest.raises(OSError, match="manifest has .* bytes"):
        checkpoints.save(2, {"note": "x" * MANIFEST_BYTES})
    assert checkpoints.steps() == [1] and not list(checkpoints.folder.glob(".writing-*"))


def test_links_among_leftovers_are_removed_and_not_followed(checkpoints, tmp_path):
    checkpoints, value = checkpoints
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").write_text("mine")
    for name in (".writing-00000001", ".removing-00000001"):
        (checkpoints.folder / name).symlink_to(tmp_path / "elsewhere")
    save(checkpoints, value, 1, 2, 3)
    Checkpoints(checkpoints.folder, {"value": value})
    assert (tmp_path / "elsewhere" / "mine").exists() and checkpoints.steps() == [3, 2]
    (tmp_path / "link").symlink_to(checkpoints.folder)
    with pytest.raises(UserError, match="is a link"):
        Checkpoints(tmp_path / "link", {"value": value})


def test_variables_of_layers_that_tensorflow_does_not_track_are_held_too():
    layers = pytest.importorskip("keras_hub.src.models.deeplab_v3.deeplab_v3_layers")
    images = keras.Input((8, 8, 4))
    hidden = keras.Model(images, layers.SpatialPyramidPooling(dilation_rates=[2, 3, 4])(images))
    state = {"model": hidden}
    missing = untracked(state, hidden.variables)["untracked"]
    assert 0 < len(missing) < len(hidden.variables)
    assert not untracked({**state, "untracked": missing}, hidden.variables)
    plain = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.BatchNormalization()])
    assert untracked({"model": plain}, plain.variables) == {}
