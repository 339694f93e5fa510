"""The folder of a run: who may use it, and what is written there."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import logging
import logging.handlers
import os
from pathlib import Path
from typing import Any

from simsiam_tf import config as configs
from simsiam_tf.checkpoints import newest_manifest
from simsiam_tf.errors import UserError
from simsiam_tf.files import replace_text

log = logging.getLogger("simsiam_tf")


class Workdir:
    """Claims a folder for one process and keeps its records.

        config.flags (re-runnable)  config.json  metrics.jsonl  train.log
        checkpoints/  tb/  export/

    records: what metrics.jsonl holds, a dictionary a line.

    Args:
        path: created when missing.
        writes: False for all workers of a run but the chief, which look on: nothing is claimed
            and nothing written.

    Raises:
        UserError: not writable, or in use by a running process.
    """

    def __init__(self, path: str | Path, writes: bool = True) -> None:
        self.path, self.writes = Path(path).expanduser().absolute(), writes
        self.records: list[dict[str, Any]] = []
        self._written = -1  # bytes of metrics.jsonl; −1: not what `records` are
        self._files: dict[str, str] = {}  # config.json and config.flags
        if not writes:
            return
        self._claim()
        for leftover in (*self.path.glob("*.tmp"), *self.path.glob("export/writing.*")):
            leftover.unlink(missing_ok=True)
        self._handler = _Log(self.path / "train.log", delay=True)
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(self._handler)
        log.setLevel(logging.INFO)
        log.propagate = False  # the terminal has the progress bar

    def _claim(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / ".lock", "a+")  # noqa: SIM115 - held for the run
        except OSError as error:
            raise UserError(
                f"--workdir={self.path}: cannot be written ({error.strerror}). Choose another."
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            pid = lock.read(20).strip() or "unknown"
            lock.close()
            raise UserError(
                f"--workdir={self.path}: in use by process {pid}. Wait for it or choose another."
            ) from error
        except OSError as error:
            lock.close()
            raise UserError(
                f"--workdir={self.path}: its file system cannot lock files ({error.strerror}), so that two "
                "runs could not be kept apart. Choose another."
            ) from error
        self._lock = lock
        try:
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
        except OSError as error:
            raise UserError(
                f"--workdir={self.path}: cannot be written ({error.strerror}). Make room or choose another."
            ) from error

    def check(self, config: Any, facts: dict[str, Any] | None = None) -> None:
        """Holds a configuration against the one that the folder has, if any.

        Where config.json is gone or damaged, the newest checkpoint's manifest stands in.

        Args:
            config: a configuration's dataclass.
            facts: what else binds a run, such as the data's fingerprint, once it is known.

        Raises:
            UserError: naming every field that differs.
        """
        before = self._before() if self.writes else None
        if before is None:
            return
        whole, old = described(config, facts or {}), before.get("facts", {})
        differ = [
            f"--{n} was {before.get(n)}, is {whole[n]}"
            for n in configs.differences(before, whole, type(config))
        ]
        differ += [f"{k} was {old[k]}, is {v}" for k, v in whole["facts"].items() if old.get(k, v) != v]
        if differ:
            raise UserError(
                f"--workdir={self.path} belongs to another configuration: "
                f"{'; '.join(differ)}. Choose another folder, or continue with its own: "
                f"--flagfile={self.path / 'config.flags'}"
            )

    def agree(self, config: Any, facts: dict[str, Any]) -> None:
        """Writes the configuration, once it agrees with what the folder has (`check`)."""
        if not self.writes:
            return
        self.check(config, facts)
        whole = described(config, facts)
        self._files = {
            "config.json": json.dumps(whole, indent=1) + "\n",
            "config.flags": configs.to_flags(config),
        }
        try:
            self._write_files()
        except OSError as error:
            raise UserError(
                f"--workdir={self.path}: cannot be written ({error.strerror}). Make room or choose another."
            ) from error

    def _before(self) -> dict[str, Any] | None:
        """The configuration that the folder belongs to; None where it is new."""
        file, folder = self.path / "config.json", self.path / "checkpoints"
        if file.is_file():
            try:
                before = json.loads(file.read_text())
                if isinstance(before, dict) and isinstance(before.get("facts", {}), dict):
                    return before
            except (OSError, ValueError, RecursionError):
                pass
        manifest = newest_manifest(folder)
        if manifest:
            log.warning("%s was gone or damaged; taken from the newest checkpoint", file)
            return manifest.get("configuration", {})
        if file.exists():
            raise UserError(f"{file}: unreadable. Restore it or choose another --workdir.")
        if folder.exists() and any(folder.iterdir()):
            raise UserError(
                f"--workdir={self.path}: has checkpoints but no config.json to tell whose. "
                "Restore that file or choose another folder."
            )
        return None

    def _write_files(self) -> None:
        for name, text in self._files.items():
            replace_text(self.path / name, text)

    def rewind(self, step: int, pending: bool = False) -> list[dict]:
        """Drops records of steps after `step`, which are about to be made again.

        pending: the evaluation at `step` is to be made again, too.
        """
        file = self.path / "metrics.jsonl"
        self.records = []
        for line in file.read_text().splitlines() if file.exists() else []:
            try:
                record = json.loads(line)
                again = pending and record["step"] == step and "loss" not in record
                if record["step"] <= step and not again:
                    self.records.append(record)
            except (ValueError, KeyError, TypeError):  # cut off by a crash
                continue
        self._written = -1
        if self.writes:
            self._write_records()
        return self.records

    def record(self, step: int, values: dict[str, Any]) -> str | None:
        """Adds a line to metrics.jsonl; says why where that failed. It is tried again with the next."""
        self.records.append({"step": step, **values})
        if not self.writes:
            return None
        file = self.path / "metrics.jsonl"
        try:
            if file.exists() and file.stat().st_size == self._written:
                with open(file, "a") as out:
                    out.write(json.dumps(self.records[-1]) + "\n")
                self._written = file.stat().st_size
            else:  # removed, or cut off by a full disk
                self._write_records()
        except OSError as error:
            self._written = -1
            return f"{file} cannot be written ({error.strerror}); its lines are kept in memory until it can"
        return None

    def _write_records(self) -> None:
        file = self.path / "metrics.jsonl"
        replace_text(file, "".join(json.dumps(r) + "\n" for r in self.records))
        self._written = file.stat().st_size

    def sync(self) -> None:
        """All records on the disk. Raises OSError where they cannot be."""
        if not self.writes:
            return
        if self._written < 0:
            self._write_records()
        with open(self.path / "metrics.jsonl", "rb") as file:
            os.fsync(file.fileno())

    def mend(self) -> bool:
        """Makes the folder anew where somebody has removed it; whether that was so.

        Raises:
            UserError: it cannot be made, or another run has it now.
        """
        if not self.writes:
            return False
        try:
            if os.path.samestat(os.stat(self.path / ".lock"), os.fstat(self._lock.fileno())):
                return False
        except OSError:
            pass
        former = self._lock
        self._claim()
        former.close()
        self._write_files()
        self._write_records()
        return True

    def release(self) -> None:
        """Lets another process in."""
        if hasattr(self, "_handler"):
            log.removeHandler(self._handler)
            self._handler.close()
            self._lock.close()


class _Log(logging.handlers.WatchedFileHandler):
    """train.log, made again when it was removed. What cannot be written must not end a run."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        pass


def described(config: Any, facts: dict[str, Any]) -> dict[str, Any]:
    """What a work folder belongs to, as JSON: the flags, and what else binds a run."""
    return json.loads(json.dumps({**dataclasses.asdict(config), "facts": facts}))
