"""The folder of a run: who may use it, and what is written there."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import logging
import logging.handlers
import os
import shlex
from pathlib import Path
from typing import Any, TextIO

from simsiam_tf import config as configs
from simsiam_tf.loop.checkpoints import newest_manifest
from simsiam_tf.loop.metrics_file import MetricsFile
from simsiam_tf.runtime import atomic_files, progress
from simsiam_tf.runtime.errors import UserError

log = logging.getLogger("simsiam_tf")

FILES = (".lock", "config.flags", "config.json", "metrics.jsonl", "train.log")
FOLDERS = ("checkpoints", "export", "tb")
LOCK_BYTES = 32  # that a lock may have: a process's number


class Workdir:
    """Claims a folder for one process and keeps its records.

        config.flags (re-runnable)  config.json  metrics.jsonl  train.log
        checkpoints/  tb/  export/

    records: what metrics.jsonl holds. What is logged goes into train.log, warnings
    to the terminal, too.

    Args:
        path: created when missing. It may be a link; nothing that is written in it may be one.
        writes: False for all workers of a run but the chief, which look on: nothing is claimed
            and nothing written.

    Raises:
        UserError: not writable, or in use by a running process.
    """

    def __init__(self, path: str | Path, writes: bool = True) -> None:
        self.path, self.writes = Path(path).expanduser().absolute(), writes
        self.records = MetricsFile(self.path / "metrics.jsonl", writes)
        self._known: dict[str, Any] | None = None  # the configuration that the folder belongs to
        self._files: dict[str, str] = {}  # config.json and config.flags
        if not writes:
            return
        self._claim()
        for pattern in (
            atomic_files.TEMPORARY_FILES,
            f"export/{atomic_files.TEMPORARY_FILES}",
            "unreadable.tmp",
            "export/writing.*",
        ):
            for leftover in self.path.glob(pattern):
                atomic_files.remove_path(leftover)
        self._handlers = [_Log(self.path / "train.log", delay=True), _Shown(logging.WARNING)]
        self._handlers[0].setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        for handler in self._handlers:
            log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False  # the terminal has the progress bar

    def _claim(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            atomic_files.check_no_links(self.path, FILES, FOLDERS)
            lock = open(self.path / ".lock", "a+", opener=atomic_files.open_no_link)  # noqa: SIM115 - held for the run
        except OSError as error:
            raise UserError(
                f"workdir={self.path}: cannot be written ({error.strerror}). Choose another."
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            pid = lock.read(20).strip() or "unknown"
            lock.close()
            raise UserError(
                f"workdir={self.path}: in use by process {pid}. Wait for it or choose another."
            ) from error
        except OSError as error:
            lock.close()
            raise UserError(
                f"workdir={self.path}: its file system cannot lock files ({error.strerror}), so that two "
                "runs could not be kept apart. Choose another."
            ) from error
        self._lock = lock
        held = os.fstat(lock.fileno())
        if held.st_size > LOCK_BYTES or held.st_nlink > 1:
            raise UserError(f"{self.path / '.lock'}: is another file than a run's lock. Remove it.")
        try:
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
        except OSError as error:
            raise UserError(
                f"workdir={self.path}: cannot be written ({error.strerror}). Make room or choose another."
            ) from error

    def check_config(self, config: Any, metadata: dict[str, Any] | None = None) -> None:
        """Holds a configuration against the one that the folder has, if any.

        Where config.json is gone or damaged, the newest checkpoint's manifest stands in.

        Args:
            config: a configuration's dataclass.
            metadata: what else binds a run, such as the data's fingerprint, once it is known.

        Raises:
            UserError: naming every field that differs.
        """
        before = self._known or (self._before() if self.writes else None)
        if before is None:
            return
        self._known = before
        whole, old = run_description(config, metadata or {}), before.get("metadata", {})
        differ = [
            f"`{n}` was {before.get(n)}, is {whole[n]}"
            for n in configs.differences(before, whole, type(config))
        ]
        others = {k: v for k, v in whole["metadata"].items() if not _fits(old.get(k, v), v)}
        differ += [f"{k} was {old[k]}, is {v}" for k, v in others.items()]
        if any(name.startswith("contents of") for name in others):
            raise UserError(
                f"workdir={self.path}: its images are others than when the run began "
                f"({'; '.join(differ)}). Put those back, or begin anew in another folder; a finished "
                f"pre-training gives its weights: weights={shlex.quote(str(self.path))}"
            )
        if differ:
            own = f"flagfile={shlex.quote(str(self.path / 'config.flags'))}"
            longer = (
                " To train longer, begin another run with the weights of this one, when it has ended: "
                f"weights={shlex.quote(str(self.path))} and another `workdir`."
            )
            only_epochs = [text.split()[0] for text in differ] == ["`epochs`"]
            raise UserError(
                f"workdir={self.path} belongs to another configuration: {'; '.join(differ)}. "
                f"Choose another folder, or continue with its own: {own}."
                f"{longer if only_epochs and isinstance(config, configs.PretrainConfig) else ''}"
            )

    def bind(self, config: Any, metadata: dict[str, Any]) -> None:
        """Writes the configuration, once it agrees with what the folder has (`check`)."""
        if not self.writes:
            return
        self.check_config(config, metadata)
        whole = run_description(config, metadata)
        self._known = whole
        self._files = {
            "config.json": json.dumps(whole, indent=1) + "\n",
            "config.flags": configs.to_flags(config),
        }
        try:
            self._write_files()
        except OSError as error:
            raise UserError(
                f"workdir={self.path}: cannot be written ({error.strerror}). Make room or choose another."
            ) from error

    def _before(self) -> dict[str, Any] | None:
        """The configuration that the folder belongs to; None where it is new."""
        file, folder = self.path / "config.json", self.path / "checkpoints"
        if file.is_file():
            try:
                before = json.loads(file.read_text(encoding="utf-8"))
                if isinstance(before, dict) and isinstance(before.get("metadata", {}), dict):
                    return before
            except (OSError, ValueError, RecursionError):
                pass
        manifest = newest_manifest(folder)
        if manifest:
            log.warning("%s was gone or damaged: the newest checkpoint's configuration counts", file)
            return manifest.get("configuration", {})
        if file.exists():
            raise UserError(f"{file}: unreadable. Restore it or choose another `workdir`.")
        if folder.exists() and any(folder.iterdir()):
            raise UserError(
                f"workdir={self.path}: has checkpoints but no config.json to tell whose. "
                "Restore that file or choose another folder."
            )
        return None

    def _write_files(self) -> None:
        for name, text in self._files.items():
            atomic_files.atomic_write_text(self.path / name, text)

    def remake_if_removed(self) -> bool:
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
        self.records.rewrite()
        return True

    def release(self) -> None:
        """Lets another process in."""
        if hasattr(self, "_handlers"):
            for handler in self._handlers:
                log.removeHandler(handler)
                handler.close()
            self._lock.close()


class _Shown(logging.Handler):
    """Warnings as lines on the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        progress.say(self.format(record))


class _Log(logging.handlers.WatchedFileHandler):
    """train.log, made again when it was removed. What cannot be written must not end a run."""

    def _open(self) -> TextIO:
        options = {"encoding": "utf-8", "errors": "backslashreplace", "opener": atomic_files.open_no_link}
        return open(self.baseFilename, self.mode, **options)

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


def _fits(old: Any, new: Any) -> bool:
    """Whether a fact is as it was. What an earlier version did not write down is taken as it is."""
    return {**new, **old} == new if isinstance(old, dict) and isinstance(new, dict) else old == new


def run_description(config: Any, metadata: dict[str, Any]) -> dict[str, Any]:
    """What a work folder belongs to, as JSON: the flags, and what else binds a run."""
    return json.loads(json.dumps({**dataclasses.asdict(config), "metadata": metadata}))
