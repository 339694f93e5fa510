"""A file of features: one process writes it, row by row; whoever reads it knows that it is whole.

    NAME.npy          features, float32 [N, F]
    NAME.json         {"rows": N, "sha256": of the .npy file, "state": its size, times and place}
    NAME.writing.npy  an unfinished file; the .json then says how many of its rows are known to be right

Guarded against: two processes that write the same file (the second waits for the first, whose end, by
kill −9 too, frees it) and a file that changed since it was written (its SHA-256 is computed again whenever
its "state" differs). Not guarded against: a disk that gives back other bytes while the file's times stay.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import filelock
import numpy as np

from simsiam_tf.features import mapped_arrays
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.atomic_files import atomic_write_text, open_no_link

BLOCK = 2**24  # bytes that are hashed at a time
FLOAT32 = np.dtype("<f4")
UNFINISHED = ".writing.npy"


def read(file: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The features in a file, mapped; None where there are none, or others than those that were written.

    A line on stderr tells of a damaged file.
    """
    try:
        with open(file, "rb") as opened:
            note, state = _note(file), _state(opened)
            if note.get("rows") != shape[0]:
                return None
            if note.get("state") != state:
                if _sha256(opened, state[0]).hexdigest() != note.get("sha256"):
                    print(f"{file}: damaged (its SHA-256 differs); features are made anew", file=sys.stderr)
                    return None
                with contextlib.suppress(OSError):  # of a folder that may only be read
                    _write_note(file, {**note, "state": state})
            opened.seek(0)
            rows = mapped_arrays.map_array(opened, state[0])
    except (OSError, ValueError):
        return None
    return rows if rows.shape == shape and rows.dtype == FLOAT32 else None


@contextlib.contextmanager
def claim(file: Path, what: str) -> Iterator[tuple[BinaryIO, Path]]:
    """The unfinished file, open for this process alone, and its path; waits while another process has it.

    On a file system without locks the path is one of its own, and the file cannot be taken up later.

    what: the name of the images, for the line that says who is waited for.
    """
    path, lock_file = file.with_suffix(UNFINISHED), file.with_suffix(".lock")
    lock = filelock.FileLock(lock_file, thread_local=False)  # ends with the process, by kill -9 too
    try:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            whom = f"process {_note(file).get('process', 'unknown')}"
            print(f"{what}: waiting for {whom}, which makes the same features", file=sys.stderr)
            lock.acquire()
    except (OSError, NotImplementedError):
        lock_file.unlink(missing_ok=True)
    else:
        try:
            with open(path, "r+b", opener=_open_or_create) as opened:
                yield opened, path
                if not _state(opened)[0]:  # there was nothing to write
                    path.unlink()
        finally:
            with contextlib.suppress(OSError):  # Windows keeps a file that is open
                lock_file.unlink()
            lock.release()
        return
    path = file.with_suffix(f".{os.getpid()}-{secrets.token_hex(4)}{UNFINISHED}")
    try:
        with open(path, "x+b") as opened:
            yield opened, path
    finally:
        path.unlink(missing_ok=True)


class Writer:
    """Writes features row by row; what an ended process left is taken up.

    rows: how many are written.

    Args:
        file: where the features will lie.
        shape: of all of them.
        opened, path: the unfinished file (`claim`).
    """

    def __init__(self, file: Path, shape: tuple[int, int], opened: BinaryIO, path: Path) -> None:
        self.file, self.opened, self.path = file, opened, path
        head = _header(shape)
        note = _note(file)
        self.rows = note["rows"] if isinstance(note.get("rows"), int) else 0
        row = shape[1] * FLOAT32.itemsize
        length, whole = len(head) + self.rows * row, len(head) + shape[0] * row
        if 0 < self.rows <= shape[0] and _state(opened)[0] == whole:
            self.digest = _sha256(opened, length)
            if self.digest.hexdigest() == note.get("sha256"):
                opened.seek(length)
                return
        opened.seek(0)
        opened.truncate()
        opened.write(head)
        opened.truncate(whole)
        self.rows, self.digest = 0, hashlib.sha256(head)
        self.sync()  # so that others know whom they wait for

    def add(self, rows: np.ndarray) -> None:
        """Writes the next rows."""
        data = np.ascontiguousarray(rows, FLOAT32).tobytes()
        self.opened.write(data)
        self.digest.update(data)
        self.rows += len(rows)

    def sync(self) -> None:
        """Brings all rows to the disk, and notes that they are there."""
        self.opened.flush()
        os.fsync(self.opened.fileno())
        if self.path == self.file.with_suffix(UNFINISHED):
            self._note(process=os.getpid())

    def finish(self) -> None:
        """Gives the file its name."""
        self.sync()
        self._note()  # first, so that a finished file always has its digest
        self.path.replace(self.file)
        self._note(state=_state(self.opened))

    def _note(self, **more: Any) -> None:
        _write_note(self.file, {"rows": self.rows, "sha256": self.digest.hexdigest(), **more})

    def written(self) -> np.ndarray:
        """All rows, once none is missing, mapped."""
        self.opened.flush()
        self.opened.seek(0)
        return mapped_arrays.map_array(self.opened, _state(self.opened)[0])

    def remove(self) -> None:
        """Removes the unfinished file."""
        self.path.unlink(missing_ok=True)
        self.file.with_suffix(".json").unlink(missing_ok=True)


def _header(shape: tuple[int, int]) -> bytes:
    """The beginning of a .npy file of this shape."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, mapped_arrays.description(shape, FLOAT32))
    return head.getvalue()


def _open_or_create(path: str, flags: int) -> int:
    return open_no_link(path, flags | os.O_CREAT)


def _state(opened: BinaryIO) -> list[int]:
    """What differs where a file was written to, replaced or moved to another disk; its first is the size."""
    status = os.fstat(opened.fileno())
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _sha256(opened: BinaryIO, length: int):  # noqa: ANN202
    """Of a file's first bytes."""
    digest = hashlib.sha256()
    opened.seek(0)
    starts = range(0, length, BLOCK)
    for start in progress.bar(starts, "verifying kept features", unit="block", leave=False):
        digest.update(opened.read(min(BLOCK, length - start)))
    return digest


def _note(file: Path) -> dict:
    try:
        note = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        return note if isinstance(note, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def _write_note(file: Path, note: dict) -> None:
    atomic_write_text(file.with_suffix(".json"), json.dumps(note))
