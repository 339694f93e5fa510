"""Folders made to harm: names, links, depth and reports; nothing hangs, and nothing is passed over."""

import hashlib
import json
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
import tensorflow as tf
from hostile_files import normal

from simsiam_tf.data import open_source
from simsiam_tf.data.sources.unreadable import add_to_report
from simsiam_tf.runtime.errors import UserError


@pytest.fixture
def deep():
    """A folder with folders within folders, more than Python recurses: pytest could not remove them."""
    here, root = os.getcwd(), Path(tempfile.mkdtemp())
    os.chdir(root)
    for _ in range(1200):
        os.mkdir("d")
        os.chdir("d")
    os.chdir(here)
    yield root
    subprocess.run(["rm", "-r", root], check=True)


def test_folders_that_contain_themselves_and_very_deep_ones_end(deep):
    normal(deep)
    normal(deep.joinpath(*1200 * "d"))
    for name in ("loop", "loop.jpg"):
        (deep / name).symlink_to(deep, target_is_directory=True)
    assert [name[-6:] for name in open_source(deep).names] == ["ok.png", "ok.png"]


def test_what_must_not_be_read_is_named(tmp_path, monkeypatch):
    for place in (tmp_path, tmp_path / "closed"):
        normal(place)
    normal(tmp_path, "secret.png")
    scandir, opened = os.scandir, os.open

    def forbidden(call, name):
        def checked(path, *args):
            if str(os.fsdecode(path)).rstrip("/").endswith(name):
                raise PermissionError(13, "Permission denied", path)
            return call(path, *args)

        return checked

    monkeypatch.setattr(os, "scandir", forbidden(scandir, "closed"))
    monkeypatch.setattr(os, "open", forbidden(opened, ("secret.png", "closed")))
    report = tmp_path / "report.json"
    assert list(open_source(tmp_path, on_bad_image="skip", report=report).names) == ["ok.png"]
    reasons = json.loads(report.read_text())["unreadable"]
    assert reasons == {"closed/": "not a regular file", "secret.png": "Permission denied"}
    with pytest.raises(UserError, match="closed: cannot be listed .Permission denied"):
        open_source(tmp_path / "closed")


def test_names_that_are_no_text_work(tmp_path, capsys):
    names = [b"caf\xe9.png", b"two\nlines.png", b"\x1b[2J.png"]
    for name in names:
        normal(tmp_path, os.fsdecode(name))
    report = tmp_path / "report.json"
    for _ in range(2):
        source = open_source(f"folder:{tmp_path}", report=report)
        assert [source.decode(tf.constant(i)).shape for i in range(3)] == [(30, 30, 3)] * 3
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
        normal(tmp_path / "other")
        with pytest.raises(UserError) as caught:
            open_source(tmp_path)
        open_source(tmp_path, on_bad_image="skip")
        for line in (str(caught.value), *capsys.readouterr().err.rstrip("\n").split("\n")):
            assert line.isprintable(), line
        os.unlink(tmp_path / os.fsdecode(name))


def test_the_fingerprint_is_what_it_was(tmp_path):
    for name in ("b.png", "ä.png"):
        normal(tmp_path, name)
    expected = hashlib.sha256("b.png\nä.png".encode()).hexdigest()[:16]
    assert open_source(f"folder:{tmp_path}").fingerprint == expected


REPORTS = ["{", "[" * 100_000, "[1]", '{"unreadable": 3}', b"\xff", "null", " " * 2**22]


@pytest.mark.parametrize("kind", [*REPORTS, "a pipe", "a device"], ids=lambda k: repr(k[:9]))
def test_a_damaged_report_is_made_again(tmp_path, kind):
    root, report = tmp_path / "images", tmp_path / "report.json"
    normal(root)
    (root / "bad.jpg").write_bytes(b"")

    def damage():
        report.unlink(missing_ok=True)
        if kind == "a pipe":
            os.mkfifo(report)
        elif kind == "a device":
            report.symlink_to("/dev/zero")
        else:
            report.write_bytes(kind if isinstance(kind, bytes) else kind.encode())

    damage()
    assert list(open_source(root, on_bad_image="skip", report=report).names) == ["ok.png"]
    assert report.is_file() and json.loads(report.read_text()) == {"unreadable": {"bad.jpg": "empty file"}}
    damage()
    add_to_report(report, ["gone.jpg"])
    assert report.is_file() and list(json.loads(report.read_text())["unreadable"]) == ["gone.jpg"]


def test_a_report_does_not_follow_a_link_out_of_its_folder(tmp_path):
    normal(tmp_path / "images")
    (tmp_path / "images" / "bad.jpg").write_bytes(b"")
    victim, report = tmp_path / "victim", tmp_path / "report.json"
    victim.write_text("mine")
    report.with_suffix(".tmp").symlink_to(victim)
    open_source(tmp_path / "images", on_bad_image="skip", report=report)
    assert victim.read_text() == "mine" and report.exists() and not report.is_symlink()
