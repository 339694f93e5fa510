"""Records of files: kept for a set, shared by commands, renewed only for what has changed."""

import os
import time

import numpy as np
import pytest

from simsiam_tf.data.images.formats import UnavailableFormat
from simsiam_tf.data.sources import file_records
from simsiam_tf.data.sources.file_records import cache_folder, file_state
from simsiam_tf.runtime.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMSIAM_TF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / name).write_text(name)
    return folder


class Checker:
    """A check that counts its calls; files that hold "bad" are unreadable."""

    def __init__(self, folder, names):
        self.folder, self.names, self.checked = folder, names, []

    def __call__(self, i):
        text = (self.folder / self.names[i]).read_text()
        self.checked.append(self.names[i])
        if text == "bad":
            raise ValueError("it is bad")
        return {"digest": text.encode(), "width": len(text)}


def records_of(folder, level="decode", key="set", checker=Checker):
    names = sorted(os.listdir(folder))
    check = checker(folder, names)
    states = np.array([file_state(folder / name) for name in names])
    records, changes = file_records.file_records(key, names, states, level, check)
    return records, changes, sorted(check.checked)


def test_files_are_checked_once(folder):
    records, changes, checked = records_of(folder)
    assert checked == ["a", "b", "c"] and not records.unreadable()
    assert (changes.changed, changes.new, changes.gone) == ([], 3, 0)
    again, changes, checked = records_of(folder)
    assert checked == [] and (changes.changed, changes.new, changes.gone) == ([], 0, 0)
    np.testing.assert_array_equal(again.rows, records.rows)


def test_one_more_file_costs_one_check(folder):
    records_of(folder)
    (folder / "bb").write_text("new")
    records, changes, checked = records_of(folder)
    assert checked == ["bb"] and changes.new == 1
    assert records.rows["digest"].tolist() == [b"a", b"b", b"new", b"c"]


def test_changed_and_missing_files(folder):
    records_of(folder)
    (folder / "a").write_text("other")
    (folder / "b").unlink()
    records, changes, checked = records_of(folder)
    assert checked == ["a"] and (changes.changed, changes.gone) == (["a"], 1)
    assert records.rows["digest"].tolist() == [b"other", b"c"]


def test_files_that_were_only_touched_are_no_change(folder):
    records_of(folder)
    os.utime(folder / "a", (1, 1))
    _, changes, checked = records_of(folder)
    assert checked == ["a"] and changes.changed == []


def test_contents_that_changed_under_the_old_mtime_are_seen(folder):
    status = (folder / "a").stat()
    records_of(folder)
    (folder / "a").write_text("x")
    os.utime(folder / "a", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert records_of(folder)[1].changed == ["a"]


def test_reasons_are_kept(folder):
    (folder / "b").write_text("bad")
    for _ in range(2):
        assert records_of(folder)[0].unreadable() == {"b": "it is bad"}
    (folder / "c").unlink()
    (folder / "c").symlink_to("nowhere")
    for _ in range(2):
        assert records_of(folder)[0].unreadable() == {"b": "it is bad", "c": "No such file or directory"}
    (folder / "b").write_text("good again")
    assert records_of(folder)[0].unreadable() == {"c": "No such file or directory"}


def test_a_check_that_goes_further_is_made(folder):
    assert records_of(folder, "none")[2] == []
    assert records_of(folder, "header")[2] == ["a", "b", "c"]
    assert records_of(folder, "none")[2] == []
    assert records_of(folder, "decode")[2] == ["a", "b", "c"]
    assert records_of(folder, "header")[2] == []


def test_other_sets_have_records_of_their_own(folder):
    records_of(folder, key="100")
    assert records_of(folder, key="200")[2] == ["a", "b", "c"]


def test_a_format_without_its_library_is_checked_again(folder):
    class Missing(Checker):
        def __call__(self, i):
            raise UnavailableFormat("needs a library")

    records, _, _ = records_of(folder, checker=Missing)
    assert set(records.unreadable().values()) == {"needs a library"}
    records, _, checked = records_of(folder)
    assert checked == ["a", "b", "c"] and not records.unreadable()


def test_a_file_that_a_network_did_not_deliver_is_checked_again(folder):
    class Away(Checker):
        def __call__(self, i):
            if self.names[i] == "b":
                raise file_records.TransientError(5, "away", "b")
            return super().__call__(i)

    assert records_of(folder, checker=Away)[0].unreadable() == {"b": "away"}
    records, changes, checked = records_of(folder)
    assert checked == ["b"] and not records.unreadable() and changes.changed == []


def test_a_network_that_stays_away_ends_the_check(folder, monkeypatch):
    class Away(Checker):
        def __call__(self, i):
            self.checked.append(i)
            time.sleep(0.005)
            raise file_records.TransientError(5, "away", f"s3://{self.names[i]}")

    for i in range(1000):
        (folder / f"{i}").write_text("")
    calls = []
    monkeypatch.setattr(
        Away, "__init__", lambda self, folder, names: vars(self).update(names=names, checked=calls)
    )
    with pytest.raises(UserError, match=r"s3://\w+: cannot be read \(away\), nor can the 16 files before it"):
        records_of(folder, checker=Away)
    assert len(calls) < 100
    assert len(records_of(folder)[2]) == 1003


def test_names_that_are_not_text(folder):
    name = os.fsdecode(b"\xff\n")
    (folder / name).write_text("d")
    records_of(folder)
    records, _, checked = records_of(folder)
    assert checked == [] and name in records.names


def test_an_interrupted_check_goes_on(folder, monkeypatch):
    class Stopped(Checker):
        def __call__(self, i):
            if self.names[i] == "c":
                raise KeyboardInterrupt
            return super().__call__(i)

    monkeypatch.setattr(file_records, "CHUNK", 1)
    with pytest.raises(KeyboardInterrupt):
        records_of(folder, checker=Stopped)
    assert records_of(folder)[2] == ["c"]


@pytest.mark.parametrize("damage", [b"", b"PK\3\4 no archive", None])
def test_a_damaged_cache_is_made_again(folder, cache, damage):
    records_of(folder)
    (path,) = (cache / "sets").iterdir()
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    assert records_of(folder)[2] == ["a", "b", "c"]
    assert records_of(folder)[2] == []


def test_a_cache_that_cannot_be_written_is_named(folder, cache, capsys):
    cache.write_text("a file in the place of the folder")
    assert records_of(folder)[2] == ["a", "b", "c"]
    assert "the images are examined again next time. SIMSIAM_TF_CACHE" in capsys.readouterr().err


def test_where_the_cache_lies(monkeypatch):
    monkeypatch.delenv("SIMSIAM_TF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert str(cache_folder()) == "/xdg/simsiam_tf"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == os.path.expanduser("~/.cache/simsiam_tf") or cache_folder().name == "simsiam_tf"
