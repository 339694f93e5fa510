"""One run: pre-training, kNN, linear evaluation, each a process of its own, and what they found."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from simsiam_tf.config import loss_kind
from simsiam_tf.runtime.atomic_files import atomic_write_text

INTERRUPTED = 75  # exit status of a command that a signal ended
DIVERGED = 4  # exit status of a pre-training whose loss was not a number
STATE = "reproduce.json"
LOG = "reproduce.log"
LOCK = "reproduce.lock"
PR_SET_PDEATHSIG = 1  # of Linux' prctl
NEIGHBOURS = 20

Start = Callable[[list[str], Path], int]  # arguments of python, log → exit status


class Failed(Exception):
    """A command of a run failed; the message is one line."""


class Interrupted(Exception):
    """A command of a run was ended by a signal, and goes on when started again."""


@contextlib.contextmanager
def locked(folder: Path, wait: Callable[[], bool]) -> Iterator[IO]:
    """Keeps a work folder for this process and those that inherit the open file, which is yielded.

    wait: is called again and again while another process has the folder; returns whether to give up.

    Raises:
        Interrupted: it gave up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if wait():
                    raise Interrupted from None
        yield lock


def run(
    flagfile: str, linear: str, folder: Path, seed: int, start: Start, data_dir: str | None = None
) -> dict:
    """Makes what is missing of a run, and returns its figures.

    flagfile: its text. linear: as in `Scale`. folder: its work folder, which may hold a part of it.
    data_dir: of every command.

    Raises:
        Failed, Interrupted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder / "row.cfg"
    wanted.write_text(flagfile, encoding="utf-8")
    where = shlex.quote(str(folder))
    all_take = f"--seed={seed}" + (f" --data_dir={shlex.quote(data_dir)}" if data_dir else "")
    with_weights = f"--weights={where} {all_take}"
    stages = {
        "pretrain": f"pretrain --flagfile={shlex.quote(str(wanted))} --workdir={where} {all_take}",
        "knn": f"knn_eval --raw_pixels=false --k=1,5,{NEIGHBOURS},200 --out={where}/knn.json {with_weights}",
        "linear": _linear(linear, where) + f" {with_weights}",
    }
    for stage, command in stages.items():
        if _state(folder)["diverged"]:
            break
        if stage in _state(folder)["done"]:
            continue
        status = _timed(stage, command, folder, start)
        if status == INTERRUPTED:
            raise Interrupted
        if status and (stage, status) != ("pretrain", DIVERGED):
            raise Failed(f"{stage}: exit status {status}: {_last_line(folder / LOG)} (in {folder / LOG})")
    return _figures(folder)


def _linear(command: str, where: str) -> str:
    name = command.split()[0]
    return f"{command} --out={where}/probe.json" if name == "probe" else f"{command} --workdir={where}/linear"


def _timed(stage: str, command: str, folder: Path, start: Start) -> int:
    """Runs a command; its seconds are added to those of tries before, and kept once it is done."""
    state, began = _state(folder), time.monotonic()
    status = start(["-m", *shlex.split(f"simsiam_tf.{command}")], folder / LOG)
    spent = state["spent"][stage] = state["spent"].get(stage, 0.0) + time.monotonic() - began
    if status in (0, DIVERGED):
        state["done"][stage] = spent
        state["diverged"] = status == DIVERGED
    atomic_write_text(folder / STATE, json.dumps(state))
    return status


def _state(folder: Path) -> dict:
    """done, spent: stage → seconds over all tries. diverged: whether that was the end of it."""
    try:
        return {"diverged": False, **json.loads((folder / STATE).read_text())}
    except OSError:
        return {"done": {}, "spent": {}, "diverged": False}


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    except OSError:
        return "no output"
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def _figures(folder: Path) -> dict:
    """What the records and results of a work folder say."""
    from simsiam_tf.evaluate.diagnosis import diagnose  # loads TensorFlow

    config = json.loads((folder / "config.json").read_text())
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    records = [record for record in lines if "loss" in record]
    last, state = records[-1], _state(folder)
    found = diagnose(records, last["step"], loss_kind(config))
    figures = {
        "linear": None, "knn": None, "loss": last["loss"], "std": last["std"], "rank": last["rank"],
        "spread": max((r["loss_spread"] for r in records[len(records) // 2 :]), default=0.0),
        "steps": last["step"], "diagnosis": found.name, "reason": found.reason,
        "seconds": round(sum(state["done"].values()), 1), "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    if state["diverged"]:
        numbers = dict.fromkeys(("loss", "std", "rank", "spread"))
        return {**figures, **numbers, "diagnosis": "divergence", "reason": "the loss was not a number"}
    accuracy = json.loads((folder / "knn.json").read_text())["accuracy"]["this backbone"]
    return {**figures, "knn": accuracy[f"k = {NEIGHBOURS}"], "linear": _linear_accuracy(folder)}


def _linear_accuracy(folder: Path) -> float:
    probe = folder / "probe.json"
    if probe.exists():
        return json.loads(probe.read_text())["accuracy"]["this backbone"]["test"]
    return json.loads((folder / "linear" / "result.json").read_text())["top1"]


def process(
    arguments: list[str], log: Path, cores: list[int] | None = None, lock: IO | None = None
) -> subprocess.Popen:
    """Starts python with its output at a log's end.

    It is not in this process's group: Ctrl-C reaches it as a SIGTERM, once. On Linux it gets one as well
    when the thread that started it is killed.

    Args:
        arguments: of python.
        log: to write to.
        cores: those it may use; all by default.
        lock: of `locked`, which it keeps as long as it lives.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    parent = os.getpid()

    def prepare() -> None:
        if prctl:
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # killed in between
                os._exit(INTERRUPTED)
        if cores:
            os.sched_setaffinity(0, cores)

    with open(log, "ab") as out:
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=prepare,
            pass_fds=(lock.fileno(),) if lock else (),
        )
