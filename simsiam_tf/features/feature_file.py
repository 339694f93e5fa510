"""A file of features, written in order by one process and verified when it is read.

    NAME.npy          features, float32 [N, F]
    NAME.json         {"rows": N, "sha256": digest of the .npy file, "state": its size, times, inode}
    NAME.writing.npy  an unfinished file; NAME.json then holds the number of rows written, the SHA-256 up to
                      there, and "process", the id of the process that writes
    NAME.lock         locked by that process, and removed by it

A second process that needs the same file waits for the first; a process that is killed frees its lock. The
SHA-256 of a finished file is verified again whenever its "state" differs. Not detected: a disk that returns
other bytes while the file's times stay the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import filelock
import numpy as np

from simsiam_tf.features.npy import npy_header
from simsiam_tf.runtime.atomic_files import atomic_write_text, open_no_link

FLOAT32 = np.dtype("<f4")
UNFINISHED = ".writing.npy"
SYNC_SECONDS = 30.0  # between flushes to the disk; an interrupted process resumes from the last flush


def read_or_write(
    file: Path, shape: tuple[int, int], source_name: str, write: Callable[[FeatureWriter], None]
) -> np.ndarray:
    """The features in a file, memory-mapped; `write` writes all rows first if the file is not complete.

    shape: (N, F). source_name: name of the images, for a line on stderr if another process writes the file.

    Raises:
        OSError: the file cannot be written.
    """
    rows = read_features(file, shape[0])
    if rows is None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with claim(file, source_name) as path:
            rows = read_features(file, shape[0])  # another process may have written it meanwhile
            if rows is None:
                with FeatureWriter(file, path, shape) as writer:
                    write(writer)
                    rows = writer.finish()
    return rows


def read_features(file: Path, rows: int) -> np.ndarray | None:
    """The features in a file, memory-mapped; None where it is missing or damaged, or has not `rows` rows.

    A line on stderr reports a damaged file.
    """
    try:
        with open(file, "rb") as opened:
            note, state = _read_note(file), _state(opened)
            if note.get("rows") != rows:
                return None
            if note.get("state") != state:
                if hashlib.file_digest(opened, "sha256").hexdigest() != note.get("sha256"):
                    print(f"{file}: damaged (its SHA-256 differs); features are made anew", file=sys.stderr)
                    return None
                with contextlib.suppress(OSError):  # such as a read-only folder
                    _write_note(file, {**note, "state": state})
        return np.load(file, mmap_mode="r")
    except OSError:
        return None


@contextlib.contextmanager
def claim(file: Path, source_name: str) -> Iterator[Path]:
    """Yields the path of the unfinished file, locked for this process; waits while another one holds it.

    On a file system without locks the path is unique to this process, and is removed at the end.
    """
    path = file.with_suffix(UNFINISHED)
    lock = filelock.FileLock(file.with_suffix(".lock"), thread_local=False)  # freed when the process ends
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        holder = f"process {_read_note(file).get('process', 'unknown')}"
        print(f"{source_name}: waiting for {holder}, which makes the same features", file=sys.stderr)
        lock.acquire()
    except (OSError, NotImplementedError):
        path = file.with_suffix(f".{os.getpid()}-{secrets.token_hex(4)}{UNFINISHED}")
    try:
        yield path
    finally:
        if not lock.is_locked:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # Windows keeps a file that is open
            os.unlink(lock.lock_file)
        lock.release()


class FeatureWriter:
    """Writes features in order, after the verified rows that an interrupted process has left.

    file, path: the finished and the unfinished file. shape: (N, F). rows: number of rows written so far.
    synced: time of the last `sync`, by `time.monotonic()`.
    """

    def __init__(self, file: Path, path: Path, shape: tuple[int, int]) -> None:
        self.file, self.path = file, path
        self.opened = open(path, "r+b", opener=_open_or_create)  # noqa: SIM115 - closed by __exit__
        header, note = npy_header(shape, FLOAT32), _read_note(file)
        self.rows = note["rows"] if note.get("rows") in range(shape[0] + 1) else 0
        self.opened.truncate(len(header) + self.rows * shape[1] * FLOAT32.itemsize)
        self.digest = hashlib.file_digest(self.opened, "sha256")  # reads up to the end
        if self.digest.hexdigest() != note.get("sha256"):
            self.rows, self.digest = 0, hashlib.sha256(header)
            self.opened.seek(0)
            self.opened.truncate()
            self.opened.write(header)
        self.sync()  # so that waiting processes can name this one

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.opened.close()

    def add(self, rows: np.ndarray) -> None:
        """Writes the next n rows, [n, F]."""
        data = np.ascontiguousarray(rows, FLOAT32).tobytes()
        self.opened.write(data)
        self.digest.update(data)
        self.rows += len(rows)

    def sync_if_due(self) -> None:
        """Calls `sync` if the last call was more than SYNC_SECONDS ago."""
        if time.monotonic() - self.synced > SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Flushes all rows to the disk and notes their number, from which an interrupted process resumes."""
        self.synced = time.monotonic()
        self.opened.flush()
        os.fsync(self.opened.fileno())
        if self.path == self.file.with_suffix(UNFINISHED):
            self._note(process=os.getpid())

    def finish(self) -> np.ndarray:
        """Gives the complete file its final name; returns all features, memory-mapped."""
        self.sync()
        self._note()  # first, so that a finished file always has its digest
        self.path.replace(self.file)
        self._note(state=_state(self.opened))
        return np.load(self.file, mmap_mode="r")

    def discard(self) -> None:
        """Removes the unfinished file and its NAME.json."""
        self.path.unlink(missing_ok=True)
        self.file.with_suffix(".json").unlink(missing_ok=True)

    def _note(self, **more: Any) -> None:
        _write_note(self.file, {"rows": self.rows, "sha256": self.digest.hexdigest(), **more})


def _open_or_create(path: str, flags: int) -> int:
    return open_no_link(path, flags | os.O_CREAT)


def _state(opened: BinaryIO) -> list[int]:
    """Size, times and inode, which differ where a file was written to, replaced or copied to another disk."""
    status = os.fstat(opened.fileno())
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _read_note(file: Path) -> dict[str, Any]:
    try:
        note = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        return note if isinstance(note, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def _write_note(file: Path, note: dict[str, Any]) -> None:
    atomic_write_text(file.with_suffix(".json"), json.dumps(note))
