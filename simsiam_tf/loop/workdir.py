"""The folder of a run: locked for one process, bound to one configuration."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import logging.handlers
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import filelock
import tensorflow as tf

from simsiam_tf import config as configs
from simsiam_tf.loop.checkpoints import newest_manifest
from simsiam_tf.runtime import atomic_files, progress, signals
from simsiam_tf.runtime.errors import UserError, as_flags, file_failure

log = logging.getLogger("simsiam_tf")

FILES = (".lock", "config.flags", "config.json", "metrics.jsonl", "train.log")
FOLDERS = ("checkpoints", "export", "tb")
LOCK_BYTES = 32  # the most that a lock file holds, a process id


class Workdir:
    """Locks a folder for this process, and writes the run's configuration and log into it.

        config.flags (re-runnable)  config.json  metrics.jsonl  train.log
        checkpoints/  tb/  export/

    The logger "simsiam_tf" writes into train.log, and its warnings also to the terminal. Its child
    "simsiam_tf.run" is for messages that all workers would repeat: it is silent on all but the chief.

    Args:
        path: created if missing. It may be a link; FILES and FOLDERS in it may not.
        writes: True for the chief; other workers lock nothing and write nothing.

    Raises:
        UserError: the folder is not writable, is in use by a running process, or has a link in it.
    """

    def __init__(self, path: str | Path, writes: bool = True) -> None:
        self.path, self.writes = Path(path).expanduser().absolute(), writes
        self._description: dict[str, Any] | None = None  # of the run that the folder belongs to
        self._texts: dict[str, str] = {}  # config.json and config.flags
        self._names: list[str] = []  # of the options of the run, once they are known
        self._handlers: list[logging.Handler] = []
        logging.getLogger("simsiam_tf.run").disabled = not writes
        if not writes:
            return
        self._lock = self._locked()
        leftovers = (atomic_files.TEMPORARY_FILES, f"export/{atomic_files.TEMPORARY_FILES}")
        for pattern in (*leftovers, "unreadable.tmp", "export/writing.*"):
            for leftover in self.path.glob(pattern):
                atomic_files.remove_path(leftover)
        self._handlers = [_LogFile(self.path / "train.log", delay=True), _Terminal(logging.WARNING)]
        for handler, form in zip(self._handlers, ("%(asctime)s %(message)s", "%(message)s"), strict=True):
            handler.setFormatter(_AsTyped(form, self._names))
            log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False  # the terminal has the progress bar

    def _locked(self) -> filelock.BaseFileLock:
        """Makes the folder and locks it; the lock ends with the process, even if it is killed."""
        path = self.path / ".lock"
        lock = filelock.FileLock(path, thread_local=False)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            atomic_files.check_no_links(self.path, FILES, FOLDERS)
            with open(path, "ab", opener=atomic_files.open_no_link) as file:
                before = os.fstat(file.fileno())
            if before.st_size > LOCK_BYTES or before.st_nlink > 1:
                raise UserError(f"{path}: is not the lock of a run. Remove it.")
            lock.acquire(timeout=0)
            self._lock_stat = path.stat()
        except filelock.Timeout as error:
            pid = "unknown"
            with contextlib.suppress(OSError):  # Windows locks the content of the file, too
                pid = path.read_text("utf-8", "replace").strip() or pid
            raise UserError(
                f"workdir={self.path}: in use by process {pid}. Wait for it or choose another."
            ) from error
        except (OSError, NotImplementedError) as error:  # some file systems have no locks
            raise self._unwritable(error) from error
        with contextlib.suppress(OSError), open(path, "w", opener=atomic_files.open_no_link) as file:
            file.write(str(os.getpid()))
        return lock

    def _unwritable(self, error: Exception) -> UserError:
        return UserError(
            f"workdir={self.path}: cannot be written and locked ({error_text(error)}). "
            "Make room or choose another."
        )

    def description(self) -> dict[str, Any] | None:
        """Returns `run_description` of the run that the folder belongs to; None for a new folder.

        If config.json is missing or damaged, that of the newest checkpoint's manifest. Also None if the
        folder is not written by this process.

        Raises:
            UserError: the folder has checkpoints or a damaged config.json, and does not tell of which run.
        """
        if self._description is None and self.writes:
            self._description = self._read_description()
        return self._description

    def check_config(self, config: Any, metadata: dict[str, Any] | None = None) -> None:
        """Compares a configuration with that of the run in the folder, if there is one.

        metadata: `RunComponents.metadata`, which must stay the same, too; None while it is not yet known.

        Raises:
            UserError: options or metadata differ that may not, and the message names all of them; or as for
                `description`.
        """
        self._names[:] = configs.field_types(type(config))
        before = self.description()
        if before is None:
            return
        after, old = run_description(config, metadata or {}), before.get("metadata", {})
        options = configs.differences(before, after, type(config))
        changed = {k: v for k, v in after["metadata"].items() if old.get(k) != v}
        differences = "; ".join(
            [f"`{name}` was {before.get(name)}, is {after[name]}" for name in options]
            + [f"{name} was {old.get(name)}, is {value}" for name, value in changed.items()]
        )
        weights = f"weights={shlex.quote(str(self.path))}"
        if any(name.startswith("contents of") for name in changed):
            raise UserError(
                f"workdir={self.path}: its images are others than when the run began ({differences}). Put "
                "the former images back, or begin another run in another folder. If this one is a finished "
                f"pre-training, that run can start from its weights: {weights}"
            )
        if differences:
            longer = ""
            lengths = {"epochs", "minutes"}
            if {*options} <= lengths and not changed and isinstance(config, configs.PretrainConfig):
                longer = (
                    " To train longer, begin another run with the weights of this one, when it has ended: "
                    f"{weights} and another `workdir`."
                )
            raise UserError(
                f"workdir={self.path} belongs to another configuration: {differences}. "
                "Choose another folder, or continue with its own: "
                f"flagfile={shlex.quote(str(self.path / 'config.flags'))}.{longer}"
            )

    def bind(self, config: Any, metadata: dict[str, Any]) -> None:
        """Checks a configuration, and binds the folder to it: writes config.json and config.flags."""
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
        signals.set_flagfile(self.path / "config.flags")

    def _read_description(self) -> dict[str, Any] | None:
        """Reads the description of the run that the folder belongs to; None for a new folder."""
        file, folder = self.path / "config.json", self.path / "checkpoints"
        with contextlib.suppress(OSError, ValueError, RecursionError):
            before = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(before, dict) and isinstance(before.get("metadata", {}), dict):
                return before
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
            UserError: the folder cannot be made, or another run uses it now.
        """
        if not self.writes:
            return False
        with contextlib.suppress(OSError):
            if os.path.samestat((self.path / ".lock").stat(), self._lock_stat):
                return False
        former, self._lock = self._lock, self._locked()
        former.release()
        self._write_texts()
        return True

    @contextlib.contextmanager
    def named_trouble(self, what: str) -> Iterator[None]:
        """Turns an OSError of the block into a UserError. what: what is written, for the message."""
        try:
            yield
        except OSError as error:
            fix = "Make room and rerun." if error.errno in atomic_files.UNWRITABLE else "Rerun."
            raise UserError(
                f"workdir={self.path}: {what} could not be written ({error_text(error)}). "
                f"Checkpoints are kept. {fix}"
            ) from error

    def release(self) -> None:
        """Unlocks the folder, and closes train.log."""
        for handler in self._handlers:
            log.removeHandler(handler)
            handler.close()
        if self.writes:
            self._lock.release()


class _AsTyped(logging.Formatter):
    """Writes options in messages as one types them, `name` as --name. names: a list of them that grows."""

    def __init__(self, form: str, names: list[str]) -> None:
        super().__init__(form)
        self._names = names

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = as_flags(record.message, self._names) if self._names else record.message
        return super().formatMessage(record)


class _Terminal(logging.Handler):
    """Shows warnings as lines on the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        progress.say(self.format(record))


class _LogFile(logging.handlers.WatchedFileHandler):
    """Writes train.log, anew if it was removed; an error does not end the run."""

    def _open(self) -> TextIO:
        opener = atomic_files.open_no_link
        return open(self.baseFilename, "a", encoding="utf-8", errors="backslashreplace", opener=opener)

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            super().emit(record)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        pass


def error_text(error: BaseException) -> str:
    """Returns an error's text as one line, shortened in its middle, without TensorFlow's names of nodes."""
    text = file_failure(error) or str(getattr(error, "message", error)) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    text = " ".join(re.sub(r"\{\{.*?\}\}", "", text).split())
    return text if len(text) <= 200 else f"{text[:100]} … {text[-100:]}"


def advice(error: BaseException, batch_size: int, unread_image: str) -> str:
    """What to do about an error that ended a step; empty where there is no advice.

    unread_image: what to do about an image that cannot be read.
    """
    if isinstance(error, OSError):
        return "Make room and rerun."
    if isinstance(error, MemoryError | tf.errors.ResourceExhaustedError):
        return f"Out of memory: try a smaller `batch_size` than {batch_size}."
    return unread_image if file_failure(error) else ""


def run_description(config: Any, metadata: dict[str, Any]) -> dict[str, Any]:
    """Returns what config.json says of a run: its options, and "metadata"."""
    return json.loads(json.dumps({**dataclasses.asdict(config), "metadata": metadata}))
