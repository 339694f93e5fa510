"""The folder of a run: who may use it, and what is written there."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import importlib.metadata
import json
import logging
import os
from pathlib import Path
from typing import Any

from simsiam_tf import config as configs
from simsiam_tf.errors import UserError

log = logging.getLogger("simsiam_tf")


class Workdir:
    """Claims a folder for one process and keeps its records.

        config.flags (re-runnable)  config.json  metrics.jsonl  train.log
        checkpoints/  tb/  export/

    Args:
        path: created when missing.
        writes: False for all workers of a run but the chief, which look on: nothing is claimed
            and nothing written.

    Raises:
        UserError: not writable, or in use by a running process.
    """

    def __init__(self, path: str | Path, writes: bool = True) -> None:
        self.path, self.writes = Path(path).expanduser().absolute(), writes
        if not writes:
            return
        self._claim()
        handler = logging.FileHandler(self.path / "train.log")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False  # the terminal has the progress bar
        self._handler = handler

    def _claim(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "a+")  # noqa: SIM115 - held for the run
        except OSError as error:
            raise UserError(
                f"--workdir={self.path}: cannot be written ({error.strerror}). Choose another."
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.seek(0)
            pid = self._lock.read().strip() or "unknown"
            self._lock.close()
            raise UserError(
                f"--workdir={self.path}: in use by process {pid}. Wait for it or choose another."
            ) from error
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    def agree(self, config: Any, facts: dict[str, Any]) -> None:
        """Writes the configuration, or holds it against the one that the folder has.

        Args:
            config: a configuration's dataclass.
            facts: what else binds a run, such as the data's fingerprint.

        Raises:
            UserError: naming every field that differs.
        """
        if not self.writes:
            return
        whole = {**dataclasses.asdict(config), "facts": facts}
        file = self.path / "config.json"
        if file.exists():
            try:
                before = json.loads(file.read_text())
            except ValueError as error:
                raise UserError(f"{file}: unreadable. Restore it or choose another --workdir.") from error
            differ = [
                f"--{n} was {before.get(n)}, is {whole[n]}"
                for n in configs.differences(before, whole, type(config))
            ]
            old = before.get("facts", {})
            differ += [f"{k} was {old[k]}, is {v}" for k, v in facts.items() if old.get(k, v) != v]
            if differ:
                raise UserError(
                    f"--workdir={self.path} belongs to another configuration: "
                    f"{'; '.join(differ)}. Choose another folder, or continue with its own: "
                    f"--flagfile={self.path / 'config.flags'}"
                )
        elif (self.path / "checkpoints").exists() and any((self.path / "checkpoints").iterdir()):
            raise UserError(
                f"--workdir={self.path}: has checkpoints but no config.json to tell whose. "
                "Restore that file or choose another folder."
            )
        replace_text(file, json.dumps(whole, indent=1) + "\n")
        replace_text(self.path / "config.flags", configs.to_flags(config))

    def rewind(self, step: int) -> list[dict]:
        """Drops records of steps after `step`, which are about to be made again."""
        file = self.path / "metrics.jsonl"
        kept = []
        for line in file.read_text().splitlines() if file.exists() else []:
            try:
                record = json.loads(line)
            except ValueError:  # cut off by a crash, so newer than any checkpoint
                break
            if record["step"] <= step:
                kept.append(record)
        if self.writes:
            replace_text(file, "".join(json.dumps(r) + "\n" for r in kept))
        return kept

    def record(self, step: int, values: dict[str, Any]) -> None:
        """Appends a line to metrics.jsonl."""
        if self.writes:
            with open(self.path / "metrics.jsonl", "a") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")

    def release(self) -> None:
        """Lets another process in."""
        if hasattr(self, "_handler"):
            log.removeHandler(self._handler)
            self._handler.close()
            self._lock.close()


def fingerprint(config: Any, facts: dict[str, Any]) -> int:
    """A number below 2⁴⁸ in which all workers of a run agree, if they do the same."""
    own = ("workdir", "data_dir")  # a worker may have its own path to what they share
    flags = {k: v for k, v in dataclasses.asdict(config).items() if k not in own}
    versions = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")}
    text = json.dumps([flags, facts, versions], sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6])


def replace_text(path: Path, text: str) -> None:
    """Writes a file so that a crash leaves the old one or the new one, whole."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
