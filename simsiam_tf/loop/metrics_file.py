"""metrics.jsonl: the records of a run, a JSON object a line."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from simsiam_tf.runtime import atomic_files

log = logging.getLogger("simsiam_tf")


class MetricsFile:
    """The records of a run, oldest first, and their file.

    rows: each with "step"; of training with "loss", of an epoch's end with "epoch", of the end with
    "images".

    Args:
        file: where they go.
        writes: False for a process that only looks on.
    """

    def __init__(self, file: Path, writes: bool = True) -> None:
        self.file, self.writes = file, writes
        self.rows: list[dict[str, Any]] = []
        self._count, self._size = 0, -1  # records and bytes that the file has; −1: unknown
        self._sha, self._length = hashlib.sha256(), 0  # of all records as lines

    def rewind(
        self, step: int, pending: bool = False, judged: bool = True, known: dict[str, Any] | None = None
    ) -> list[dict]:
        """Drops records of steps after `step`, which are about to be made again.

        pending: the evaluation at `step` is to be made again, too.
        judged: the final evaluation is not to be made again.
        known: `digest` of what was there when step `step` was committed. MetricsFile that differ are kept,
            and a warning says so.
        """
        self.rows = []
        try:
            lines = self.file.read_text("utf-8", "replace").splitlines()
        except OSError:
            lines = []
        for line in lines:
            try:
                record = json.loads(line)
                again = pending and record["step"] == step and "loss" not in record
                again = again or (not judged and record.get("images") == "all")
                if record["step"] <= step and not again:
                    self.rows.append(record)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # cut off by a crash
                continue
        text = b"".join(map(_line, self.rows))
        if known and hashlib.sha256(text[: known["bytes"]]).hexdigest() != known["sha256"] and self.writes:
            log.warning(
                "%s is not as it was when the checkpoint of step %d was made: removed, cut or changed. "
                "The weights are not touched by that; %d records are left and kept",
                self.file, step, len(self.rows),
            )  # fmt: skip
        self._sha, self._length = hashlib.sha256(text), len(text)
        if self.writes:
            self.rewrite()
        return self.rows

    def digest(self) -> dict[str, Any]:
        """Length and SHA-256 of metrics.jsonl, as it is once all records are written."""
        return {"bytes": self._length, "sha256": self._sha.hexdigest()}

    def add(self, step: int, values: dict[str, Any]) -> str | None:
        """Adds a line to metrics.jsonl; says why where that failed. It is tried again with the next."""
        self.rows.append({"step": step, **values})
        line = _line(self.rows[-1])
        self._sha.update(line)
        self._length += len(line)
        if not self.writes:
            return None
        try:
            self._write()
        except OSError as error:
            kept = "its lines are kept in memory until it can"
            return f"{self.file} cannot be written ({error.strerror}); {kept}"
        return None

    def _write(self) -> None:
        """Appends the records that metrics.jsonl lacks; writes all where it was removed or changed."""
        count = len(self.rows)
        if self._size >= 0:
            data = b"".join(map(_line, self.rows[self._count :]))
            if _append(self.file, self._size, data):
                self._count, self._size = count, self._size + len(data)
                return
        data = b"".join(map(_line, self.rows))
        atomic_files.atomic_write_bytes(self.file, data)
        self._count, self._size = count, len(data)

    def rewrite(self) -> None:
        """Makes the file anew. Raises OSError."""
        self._size = -1
        self._write()

    def sync(self) -> None:
        """All records on the disk. Raises OSError where they cannot be."""
        if not self.writes:
            return
        self._write()
        with open(self.file, "rb", opener=atomic_files.open_no_link) as file:
            os.fsync(file.fileno())


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"


def _append(file: Path, size: int, data: bytes) -> bool:
    """Appends to a file of so many bytes; False where it has another size. Raises OSError."""
    descriptor = atomic_files.open_no_link(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        if os.fstat(descriptor).st_size != size:
            return False
        if os.write(descriptor, data) < len(data):  # full in the middle of a line
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)
    return True
