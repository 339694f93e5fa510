"""metrics.jsonl: the records of a run, one JSON object per line."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_tf.runtime import atomic_files

log = logging.getLogger("simsiam_tf")


class MetricsFile:
    """The `Recorder` that keeps the records of a run in memory and appends them to metrics.jsonl.

    rows: the records, oldest first. Each has "step"; a training record also has "loss", the evaluation of an
    epoch has "epoch" (0: the baselines), the final evaluation has "images": "all".

    Args:
        file: path of metrics.jsonl.
        writes: False keeps the records in memory only.
    """

    def __init__(self, file: Path, writes: bool = True) -> None:
        self.file, self.writes = file, writes
        self.rows: list[dict[str, Any]] = []
        self._count, self._size = 0, -1  # records and bytes in the file; -1: write it anew
        self._sha, self._length = hashlib.sha256(), 0  # of all records as lines

    def rewind(
        self, step: int, epoch_ended: bool = False, evaluated: bool = True,
        digest: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Reads the file, and writes it anew without the records that the run is about to repeat.

        Args:
            step: step of the checkpoint; later records are dropped. −1: the run begins.
            epoch_ended: an epoch ended at `step`, and its evaluation will be repeated.
            evaluated: False if the final evaluation will be repeated.
            digest: the checkpoint's `digest`; None without a checkpoint. Where it does not match the records,
                a warning says so, and they are kept.
        """

        def is_kept(row: dict[str, Any]) -> bool:
            repeated = epoch_ended and row["step"] == step and "loss" not in row
            return row["step"] <= step and not repeated and (evaluated or row.get("images") != "all")

        self.rows = []
        text = ""
        with contextlib.suppress(OSError):
            text = self.file.read_text("utf-8", "replace")
        for line in text.splitlines():
            try:
                row = json.loads(line)
                if is_kept(row):
                    self.rows.append(row)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # cut off by a crash
                continue
        data = _lines(self.rows)
        if digest is None and step < 0 and text and not self.rows:
            logging.getLogger("simsiam_tf.run").warning(
                "no checkpoint is left: the run starts anew, and its earlier records are dropped"
            )
        if digest and self.writes and hashlib.sha256(data[: digest["bytes"]]).hexdigest() != digest["sha256"]:
            log.warning(
                "%s was removed, cut or changed after the checkpoint of step %d was made. "
                "The weights are not affected; the remaining %d records are kept",
                self.file, step, len(self.rows),
            )  # fmt: skip
        self._sha, self._length, self._size = hashlib.sha256(data), len(data), -1
        self._write()

    def digest(self) -> dict[str, Any]:
        """Returns the bytes and the SHA-256 that metrics.jsonl has once all records are written."""
        return {"bytes": self._length, "sha256": self._sha.hexdigest()}

    def scalars(self, step: int, values: Mapping[str, Any], group: str) -> None:
        """Adds a record; the group "perf", which depends on the clock, is left out.

        Raises:
            OSError: the file cannot be written; the record stays in memory and is written with the next one.
        """
        if group == "perf":
            return
        self.rows.append({"step": step, **values})
        line = _lines(self.rows[-1:])
        self._sha.update(line)
        self._length += len(line)
        try:
            self._write()
        except OSError as error:
            text = f"{self.file} cannot be written ({error.strerror}); its lines stay in memory until it can"
            raise OSError(error.errno, text) from error

    def picture(self, name: str, picture: np.ndarray) -> None:
        """Ignores pictures."""

    def text(self, name: str, text: str) -> None:
        """Ignores texts."""

    def sync(self) -> None:
        """Brings all records to the disk. Raises OSError."""
        self._write()
        if self.writes:
            with open(self.file, "rb", opener=atomic_files.open_no_link) as file:
                os.fsync(file.fileno())

    def _write(self) -> None:
        """Appends the missing records; writes all records if the file was removed or has another size."""
        if not self.writes:
            return
        data = _lines(self.rows[self._count :])
        if self._size >= 0 and _append(self.file, self._size, data):
            self._size += len(data)
        else:
            data = _lines(self.rows)
            atomic_files.atomic_write_bytes(self.file, data)
            self._size = len(data)
        self._count = len(self.rows)


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _append(file: Path, size: int, data: bytes) -> bool:
    """Appends to a file of `size` bytes; returns False if it has another size. Raises OSError."""
    with open(file, "ab", buffering=0, opener=atomic_files.open_no_link) as opened:
        if os.fstat(opened.fileno()).st_size != size:
            return False
        if os.write(opened.fileno(), data) < len(data):  # the disk was full in the middle of a line
            opened.truncate(size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return True
