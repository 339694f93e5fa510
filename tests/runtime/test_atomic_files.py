"""Files are whole, of their own names, and never written through a link."""

import os
import stat

import pytest

from simsiam_tf.runtime import atomic_files
from simsiam_tf.runtime.errors import UserError


def test_a_file_is_replaced_with_the_permissions_of_any_other(tmp_path):
    path, other = tmp_path / "a.json", tmp_path / "other"
    other.write_text("")
    atomic_files.atomic_write_text(path, "first")
    atomic_files.atomic_write_text(path, "naïve")
    assert path.read_bytes() == "naïve".encode()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["a.json", "other"]


def test_a_link_is_replaced_and_what_it_names_is_left_alone(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "a.json"
    victim.write_text("mine")
    path.symlink_to(victim)
    (tmp_path / "a.json.tmp").symlink_to(victim)
    atomic_files.atomic_write_text(path, "new")
    assert victim.read_text() == "mine" and path.read_text() == "new" and not path.is_symlink()


def test_names_that_are_no_text_are_written_as_they_are(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    atomic_files.atomic_write_text(tmp_path / "a", f"--data=folder:{name}")
    assert (tmp_path / "a").read_bytes() == b"--data=folder:caf\xe9"


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        atomic_files.atomic_write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_devices_pipes_and_folders_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/null")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "device", "folder"):
        with pytest.raises(OSError, match="is not a regular file"):
            atomic_files.atomic_write_text(tmp_path / name, "x")
        with pytest.raises(UserError, match=f"out=.*{name}: cannot be written"):
            atomic_files.check_writable(tmp_path / name)


def test_what_could_not_be_written_is_known_before(tmp_path):
    atomic_files.check_writable(tmp_path / "a")
    assert os.listdir(tmp_path) == []
    for path in (tmp_path / "none" / "a", "/proc/a"):
        with pytest.raises(UserError, match="workdir=.*cannot be written"):
            atomic_files.check_writable(tmp_path / path, "workdir")
