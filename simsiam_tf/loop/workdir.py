"""The folder of a run: locked for one process, bound to one configuration."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import logging.handlers
import os
import shlex
from pathlib import Path
from typing import Any, TextIO

import filelock

from simsiam_tf import config as configs
from simsiam_tf.loop.checkpoints import newest_manifest
from simsiam_tf.loop.metrics_file import MetricsFile
from simsiam_tf.runtime import atomic_files, progress
from simsiam_tf.runtime.errors import UserError

log = logging.getLogger("simsiam_tf")

FILES = (".lock", "config.flags", "config.json", "metrics.jsonl", "train.log")
FOLDERS = ("checkpoints", "export", "tb")
LOCK_BYTES = 32  # the most that a lock file holds, a process id


class Workdir:
    """Locks a folder for this process, and writes its configuration and its log.

        config.flags (re-runnable)  config.json  metrics.jsonl  train.log
        checkpoints/  tb/  export/

    The log "simsiam_tf" goes into train.log, its warnings to the terminal as well.

    Args:
        path: created if missing. It may be a link; no file or folder in it may be one.
        writes: True for the chief; other workers lock nothing and write nothing.
        keeps_records: whether metrics.jsonl is written.

    Raises:
        UserError: the folder is not writable, or is in use by a running process.
    """

    def __init__(self, path: str | Path, writes: bool = True, keeps_records: bool = True) -> None:
        self.path, self.writes = Path(path).expanduser().absolute(), writes
        self.metrics_file = MetricsFile(self.path / "metrics.jsonl", writes and keeps_records)
        self._description: dict[str, Any] | None = None  # describes the run that the folder belongs to
        self._texts: dict[str, str] = {}  # config.json and config.flags
        self._handlers: list[logging.Handler] = []
        if not writes:
            return
        self._lock = self._locked()
        leftovers = (atomic_files.TEMPORARY_FILES, f"export/{atomic_files.TEMPORARY_FILES}")
        for pattern in (*leftovers, "unreadable.tmp", "export/writing.*"):
            for leftover in self.path.glob(pattern):
                atomic_files.remove_path(leftover)
        self._handlers = [_LogFile(self.path / "train.log", delay=True), _Terminal(logging.WARNING)]
        self._handlers[0].setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        for handler in self._handlers:
            log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False  # the terminal has the progress bar

    def _locked(self) -> filelock.BaseFileLock:
        """Makes the folder and locks it; the lock ends with the process, even if it is killed."""
        path = self.path / ".lock"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            atomic_files.check_no_links(self.path, FILES, FOLDERS)
            with open(path, "ab", opener=atomic_files.open_no_link) as file:
                before = os.fstat(file.fileno())
        except OSError as error:
            raise self._unwritable(error, "Choose another.") from error
        if before.st_size > LOCK_BYTES or before.st_nlink > 1:
            raise UserError(f"{path}: is another file than a run's lock. Remove it.")
        lock = filelock.FileLock(path, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            pid = "unknown"
            with contextlib.suppress(OSError):  # Windows locks the content of the file, too
                pid = path.read_text("utf-8", "replace").strip() or pid
            raise UserError(
                f"workdir={self.path}: in use by process {pid}. Wait for it or choose another."
            ) from error
        except (OSError, NotImplementedError) as error:
            raise UserError(
                f"workdir={self.path}: its file system cannot lock files "
                f"({getattr(error, 'strerror', None) or error}), so that two runs could not be kept apart. "
                "Choose another."
            ) from error
        try:
            with open(path, "w", opener=atomic_files.open_no_link) as file:
                file.write(str(os.getpid()))
        except OSError as error:
            if os.name != "nt":
                raise self._unwritable(error) from error
        self._lock_stat = path.stat()
        return lock

    def _unwritable(self, error: OSError, fix: str = "Make room or choose another.") -> UserError:
        return UserError(f"workdir={self.path}: cannot be written ({error.strerror}). {fix}")

    def check_config(self, config: Any, metadata: dict[str, Any] | None = None) -> None:
        """Compares a configuration with that of the run in the folder, if there is one.

        If config.json is missing or damaged, the newest checkpoint's manifest is used.

        metadata: must stay the same, too (`RunComponents.metadata`); None as long as it is not known.

        Raises:
            UserError: the message names every option that differs.
        """
        before = self._description or (self._read_description() if self.writes else None)
        if before is None:
            return
        self._description = before
        after, old = run_description(config, metadata or {}), before.get("metadata", {})
        differences = [
            f"`{n}` was {before.get(n)}, is {after[n]}"
            for n in configs.differences(before, after, type(config))
        ]
        changed = {k: v for k, v in after["metadata"].items() if not _agrees(old.get(k, v), v)}
        differences += [f"{k} was {old[k]}, is {v}" for k, v in changed.items()]
        where = shlex.quote(str(self.path))
        if any(name.startswith("contents of") for name in changed):
            raise UserError(
                f"workdir={self.path}: its images are others than when the run began "
                f"({'; '.join(differences)}). Put those back, or begin anew in another folder; a finished "
                f"pre-training gives its weights: weights={where}"
            )
        if differences:
            only_epochs = [text.split()[0] for text in differences] == ["`epochs`"]
            longer = (
                " To train longer, begin another run with the weights of this one, when it has ended: "
                f"weights={where} and another `workdir`."
            )
            raise UserError(
                f"workdir={self.path} belongs to another configuration: {'; '.join(differences)}. "
                "Choose another folder, or continue with its own: "
                f"flagfile={shlex.quote(str(self.path / 'config.flags'))}."
                f"{longer if only_epochs and isinstance(config, configs.PretrainConfig) else ''}"
            )

    def bind(self, config: Any, metadata: dict[str, Any]) -> None:
        """Binds the folder to a configuration, after `check_config`: writes config.json and config.flags."""
        if not self.writes:
            return
        self.check_config(config, metadata)
        self._description = run_description(config, metadata)
        self._texts = {
            "config.json": json.dumps(self._description, indent=1) + "\n",
            "config.flags": configs.to_flags(config),
        }
        try:
            self._write_texts()
        except OSError as error:
            raise self._unwritable(error) from error

    def _read_description(self) -> dict[str, Any] | None:
        """Reads the description of the run that the folder belongs to; None if it is new."""
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

    def _write_texts(self) -> None:
        for name, text in self._texts.items():
            atomic_files.atomic_write_text(self.path / name, text)

    def remake_if_removed(self) -> bool:
        """Makes the folder anew if it was removed; returns whether it was.

        Raises:
            UserError: it cannot be made, or another run has it now.
        """
        if not self.writes:
            return False
        with contextlib.suppress(OSError):
            if os.path.samestat((self.path / ".lock").stat(), self._lock_stat):
                return False
        former, self._lock = self._lock, self._locked()
        former.release()
        self._write_texts()
        if self.metrics_file.writes:
            self.metrics_file.rewrite()
        return True

    def release(self) -> None:
        """Unlocks the folder, and ends its log."""
        for handler in self._handlers:
            log.removeHandler(handler)
            handler.close()
        if self._handlers:
            self._lock.release()


class _Terminal(logging.Handler):
    """Shows warnings as lines on the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        progress.say(self.format(record))


class _LogFile(logging.handlers.WatchedFileHandler):
    """Writes train.log, anew if it was removed; an error does not end the run."""

    def _open(self) -> TextIO:
        file = open(self.baseFilename, "ab", opener=atomic_files.open_no_link)  # noqa: SIM115 - the handler closes it
        return io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace")

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            super().emit(record)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        pass


def _agrees(old: Any, new: Any) -> bool:
    """Returns whether metadata is unchanged; keys that an earlier version did not write are ignored."""
    return {**new, **old} == new if isinstance(old, dict) and isinstance(new, dict) else old == new


def run_description(config: Any, metadata: dict[str, Any]) -> dict[str, Any]:
    """Returns the description of a run that binds its work folder: options and "metadata", as JSON."""
    return json.loads(json.dumps({**dataclasses.asdict(config), "metadata": metadata}))
