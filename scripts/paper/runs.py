"""One run: pre-training, kNN and linear evaluation, each in a process of its own, and their metrics."""

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
from simsiam_tf.runtime.signals import INTERRUPTED

DIVERGED = 4  # exit status of a pre-training whose loss was not a number
STATE = "reproduce.json"
LOG = "reproduce.log"
LOCK = "reproduce.lock"
PR_SET_PDEATHSIG = 1  # an option of Linux' prctl
NEIGHBOURS = 20

Start = Callable[[list[str], Path], int]  # arguments of python, log → exit status


class Failed(Exception):
    """A command of a run failed; the message is one line."""


class Interrupted(Exception):
    """A command of a run was ended by a signal. It continues when it is started again."""


@contextlib.contextmanager
def folder_lock(folder: Path, wait: Callable[[], bool]) -> Iterator[IO]:
    """Locks a work folder for this process and for child processes that get the yielded file.

    wait: called repeatedly while another process has the folder; returns whether to give up.

    Raises:
        Interrupted: `wait` returned True.
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


def complete_run(
    flagfile: str, linear: str, folder: Path, seed: int, start: Start, data_dir: str | None = None
) -> dict:
    """Runs the stages of a run that are not done yet, and returns its metrics.

    flagfile: text of the flagfile. linear: as in `Scale`. folder: work folder of the run, in which stages may
    be done already. start: starts a process and waits for it. data_dir: --data_dir of every command, if any.

    Raises:
        Failed, Interrupted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    row_file = folder / "row.cfg"
    row_file.write_text(flagfile, encoding="utf-8")
    where = shlex.quote(str(folder))
    shared_flags = f"--seed={seed}" + (f" --data_dir={shlex.quote(data_dir)}" if data_dir else "")
    with_weights = f"--weights={where} {shared_flags}"
    stages = {
        "pretrain": f"pretrain --flagfile={shlex.quote(str(row_file))} --workdir={where} {shared_flags}",
        "knn": f"knn_eval --raw_pixels=false --k=1,5,{NEIGHBOURS},200 --out={where}/knn.json {with_weights}",
        "linear": _linear(linear, where) + f" {with_weights}",
    }
    for stage, command in stages.items():
        if _state(folder)["diverged"]:
            break
        if stage in _state(folder)["done"]:
            continue
        status = _run_stage(stage, command, folder, start)
        if status == INTERRUPTED:
            raise Interrupted
        if status and (stage, status) != ("pretrain", DIVERGED):
            raise Failed(f"{stage}: exit status {status}: {last_line(folder / LOG)} (in {folder / LOG})")
    return _collect_metrics(folder)


def _linear(command: str, where: str) -> str:
    name = command.split()[0]
    return f"{command} --out={where}/probe.json" if name == "probe" else f"{command} --workdir={where}/linear"


def _run_stage(stage: str, command: str, folder: Path, start: Start) -> int:
    """Runs a command. Adds its seconds to those of earlier tries; records the stage as done on success."""
    state, began = _state(folder), time.monotonic()
    status = start(["-m", *shlex.split(f"simsiam_tf.{command}")], folder / LOG)
    spent = state["spent"][stage] = state["spent"].get(stage, 0.0) + time.monotonic() - began
    if status in (0, DIVERGED):
        state["done"][stage] = spent
        state["diverged"] = status == DIVERGED
    atomic_write_text(folder / STATE, json.dumps(state))
    return status


def _state(folder: Path) -> dict:
    """ "done" and "spent": stage → seconds over all tries. "diverged": whether the loss became NaN."""
    try:
        return {"diverged": False, **json.loads((folder / STATE).read_text())}
    except OSError:
        return {"done": {}, "spent": {}, "diverged": False}


def last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    except OSError:
        return "no output"
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def _collect_metrics(folder: Path) -> dict:
    """Metrics of a run, from the files of its work folder."""
    from simsiam_tf.evaluate.diagnosis import diagnose  # loads TensorFlow

    config = json.loads((folder / "config.json").read_text())
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    records = [record for record in lines if "loss" in record]
    last, state = records[-1], _state(folder)
    diagnosis = diagnose(records, last["step"], loss_kind(config))
    metrics = {
        "linear": None, "knn": None, "loss": last["loss"], "std": last["std"], "rank": last["rank"],
        "spread": max((r["loss_spread"] for r in records[len(records) // 2 :]), default=0.0),
        "steps": last["step"], "diagnosis": diagnosis.name, "reason": diagnosis.reason,
        "seconds": round(sum(state["done"].values()), 1), "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    if state["diverged"]:
        numbers = dict.fromkeys(("loss", "std", "rank", "spread"))
        return {**metrics, **numbers, "diagnosis": "divergence", "reason": "the loss was not a number"}
    accuracy = json.loads((folder / "knn.json").read_text())["accuracy"]["this backbone"]
    return {**metrics, "knn": accuracy[f"k = {NEIGHBOURS}"], "linear": _linear_accuracy(folder)}


def _linear_accuracy(folder: Path) -> float:
    probe = folder / "probe.json"
    if probe.exists():
        return json.loads(probe.read_text())["accuracy"]["this backbone"]["test"]
    return json.loads((folder / "linear" / "result.json").read_text())["top1"]


def start_process(
    arguments: list[str], log: Path, cores: list[int] | None = None, lock: IO | None = None
) -> subprocess.Popen:
    """Starts python, with its output appended to a log.

    The process is not in this process's group, so that Ctrl-C reaches it as one SIGTERM, from the queue. On
    Linux it also gets a SIGTERM when the thread that started it is killed.

    Args:
        arguments: arguments of python.
        log: file that the output is appended to.
        cores: cores that it may use; all by default.
        lock: lock of `folder_lock`, which the process keeps as long as it lives.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    parent = os.getpid()

    def prepare() -> None:
        if prctl:
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # the parent was killed before prctl
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
