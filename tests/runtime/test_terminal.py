"""Streams that are full, closed, left by their reader or not UTF-8 end no command, and leave its status."""

import errno
import io
import os
import subprocess
import sys
import time

import pytest
from helpers.runs import TINY

from simsiam_tf import pretrain
from simsiam_tf.runtime import progress, terminal

PRETRAIN = [sys.executable, "-m", "simsiam_tf.pretrain"]


class Broken(io.StringIO):
    """A stream that cannot be written."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def write(self, text):
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "No space left on device"), (errno.EPIPE, None)]
)
def test_an_error_is_kept_and_named_unless_the_reader_has_left(number, words):
    stream = terminal.SafeStream(Broken(number))
    print("lost", file=stream, flush=True)
    assert stream.error.errno == number
    assert stream.problem() == words


def shell(command, **env):
    """(status of the first command of a pipe, stdout, stderr). "$@" is the command line of a pre-training."""
    command = ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}", "_", *PRETRAIN]
    done = subprocess.run(command, capture_output=True, env={**os.environ, **env})
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def test_help_to_a_reader_that_leaves_is_quiet():
    status, out, err = shell('"$@" --help | head -1')
    assert (status, out.count("\n"), err) == (0, 1, "")


def test_help_that_is_lost_is_said():
    status, _, err = shell('"$@" --help > /dev/full')
    assert (status, err) == (2, "simsiam_tf.pretrain: stdout cannot be written (No space left on device).\n")
    assert shell('"$@" --help >&-')[0] == 0


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-", "2>&1 | head -c 0"])
def test_a_refusal_keeps_its_status_where_nobody_reads_it(where):
    status, out, err = shell(f'"$@" --epochs=0 {where}')
    assert (status, out, err) == (2, "", "")


def test_letters_that_an_encoding_lacks_are_escaped():
    status, out, err = shell('"$@" --help', PYTHONIOENCODING="ascii:strict")
    assert status == 0 and not err and "[--NAME=VALUE \\u2026]" in out


@pytest.mark.parametrize(
    ("columns", "width"), [("0", 100), ("-3", 100), ("abc", 100), ("40", 42), ("200", 100)]
)
def test_help_fits_the_terminal(columns, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert pretrain.main(["--help"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "python -m" not in line]
    assert width - 15 < max(map(len, lines)) <= width
    assert "  --epochs=float" in lines


def run_with(tmp_path, stdout, stderr):
    flags = [*TINY, "--monitor=none", f"--workdir={tmp_path}"]
    return subprocess.run([*PRETRAIN, *flags], stdout=stdout, stderr=stderr).returncode


def check_done(tmp_path):
    assert (tmp_path / "export" / "backbone.json").exists()
    assert (tmp_path / "checkpoints" / "step-00000022").exists()


@pytest.mark.slow
def test_a_run_does_not_need_its_terminal(tmp_path):
    with open("/dev/full", "w") as full:
        assert run_with(tmp_path, full, full) == 0
    check_done(tmp_path)


@pytest.mark.slow
def test_a_run_does_not_need_the_reader_of_its_output(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    assert run_with(tmp_path, writer, writer) == 0
    check_done(tmp_path)


@pytest.mark.slow
def test_a_run_that_starts_without_streams_writes_into_none_of_its_files(tmp_path):
    flags = " ".join([*TINY, "--monitor=none", f"--workdir={tmp_path}"])
    assert shell(f'"$@" {flags} <&- >&- 2>&-')[0] == 0
    check_done(tmp_path)
    assert set((tmp_path / "metrics.jsonl").read_text()[::-1][:2]) == {"\n", "}"}


def test_progress_in_a_file_is_lines(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.bar(None, "images", total=1000, unit="image", mininterval=0) as bar:
        for i in range(1000):
            bar.update()
            if i % 300 == 0:
                progress.say(f"said at {i}")
    lines = stream.getvalue().splitlines()
    assert "\r" not in stream.getvalue() and stream.getvalue().endswith("\n")
    assert [line for line in lines if "said" in line] == [f"said at {i}" for i in (0, 300, 600, 900)]
    assert lines[-1].startswith("images: 100%") and "1000/1000" in lines[-1]
    assert len(lines) == len(set(lines)) == 1004


def test_progress_in_a_file_is_seldom(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress.bar(range(100_000), "images")) == list(range(100_000))
    assert stream.getvalue() == ""
    assert progress.BETWEEN >= 10


@pytest.mark.parametrize("is_terminal", [False, True])
def test_progress_is_shown_before_the_first_item_is_done(monkeypatch, is_terminal):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "DELAY", 0.02)
    with progress.bar(None, "images", total=9) as bar:
        deadline = time.monotonic() + 30
        while "0/9" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert bar.n == 0 and stream.getvalue().count("0/9") == 1


def test_lines_of_progress_come_less_and_less_often(monkeypatch):
    """At 2 s, 6 s and 18 s, then every 20 s: each waits twice the time that has passed."""
    stream, clock = io.StringIO(), [0.0]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "DELAY", 2.0)
    with progress.bar(None, "images", total=101, maxinterval=1e9) as bar:
        bar._time, bar.start_t, bar.last_print_t, bar.miniters = (lambda: clock[0]), 0.0, 0.0, 1
        bar.dynamic_miniters = False
        for clock[0] in map(float, range(1, 102)):
            bar.update()
    counts = [int(line.partition("/")[0].split()[-1].strip("|")) for line in stream.getvalue().splitlines()]
    assert counts == [2, 6, 18, 38, 58, 78, 98, 101]
