"""Records of the files of a set: which are readable, and their headers, kept in the user's cache.

A file with the size and times of its record is not checked again, unless a command asks for a deeper check,
or the last one failed for a reason that may pass (network, missing library). A set
of a million files takes about 100 bytes of memory for each name and 80 for each record.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from simsiam_tf.data.images.formats import EXTRAS, UnavailableFormat, import_library, needs_library
from simsiam_tf.data.sources import array_file
from simsiam_tf.runtime import cores, progress
from simsiam_tf.runtime.errors import UserError

FORMAT_VERSION = 1  # of the files in the cache; files of other versions are not used
LEVELS = {"none": 0, "header": 1, "decode": 2}  # how far a file was checked
CHUNK = 4096  # files handed to the threads at a time
SAVE_EVERY = 2**16  # files checked between two writes of the cache
MAX_FAILED = 16  # files in a row that a network may fail to deliver
RECORD = np.dtype(
    [
        ("size", "i8"), ("mtime", "i8"), ("ctime", "i8"),  # bytes, nanoseconds
        ("level", "u1"), ("reason", "i4"),  # index of the reason why it is unreadable, from 1; 0: readable
        ("digest", "S27"),  # of its contents
        ("format", "S8"), ("width", "i4"), ("height", "i4"), ("channels", "i4"), ("bits", "u1"),
        ("orientation", "u1"), ("transparent", "?"), ("plain", "?"),
    ]
)  # fmt: skip


class TransientError(OSError):
    """A failure that may pass. It says nothing of the file, which every command tries again."""


Names = list[str] | tuple[str, ...]  # pass a tuple for large sets: a list is copied into one
Check = Callable[[int], dict]  # number of a file → fields of its record; raises OSError or ValueError
STATE = ("size", "mtime", "ctime")  # fields that differ once a file was written to or replaced


@dataclasses.dataclass
class FileRecords:
    """What is known of the files of a set.

    names: of the files, in order. rows: `RECORD` [N]. reasons: why files are unreadable; the rows' "reason"
    is 1 for the first of these.
    """

    names: Names
    rows: np.ndarray
    reasons: list[str]

    def unreadable(self) -> dict[str, str]:
        """Name → reason of the files that cannot be read."""
        bad = np.flatnonzero(self.rows["reason"])
        return {self.names[i]: self.reasons[self.rows["reason"][i] - 1] for i in bad}

    def note(self, i: int, level: int, fields: dict | None = None, reason: str = "") -> None:
        """Fills a row from a check's outcome."""
        if reason and reason not in self.reasons:
            self.reasons.append(reason)
        row = self.rows[i]
        row["level"], row["reason"] = level, self.reasons.index(reason) + 1 if reason else 0
        for name, value in (fields or {}).items():
            row[name] = value


@dataclasses.dataclass(frozen=True)
class Changes:
    """What differs from the kept records: files with other contents; numbers of new and gone ones."""

    changed: list[str]
    new: int
    gone: int


def cache_folder() -> Path:
    """The user's cache of this package: $SIMSIAM_TF_CACHE, or simsiam_tf in $XDG_CACHE_HOME or ~/.cache."""
    chosen = os.environ.get("SIMSIAM_TF_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "simsiam_tf"


def file_records(
    key: str, names: Names, states: np.ndarray, level: str, check: Check, reads_at_once: int = 0
) -> tuple[FileRecords, Changes]:
    """The records of a set's files. Files that are new, changed, or were checked less far are checked.

    Args:
        key: the set's place, and what the outcome of a check depends on besides the file.
        names: its files, in order.
        states: int64 [N, 3], the fields `STATE` of each.
        level: a key of `LEVELS`; "none" checks no file.
        check: checks a file.
        reads_at_once: files to check at a time, where that is more than there are processors.

    Returns:
        The records, and what has changed since they were kept.

    Raises:
        UserError: a network fails for many files in a row.
    """
    path = _cache_path("sets", key)
    kept = _load(path)
    rows, had_record = kept.rows_of(names)
    had, known = len(kept.rows), int(had_record.sum())
    same = np.all([rows[field] == states[:, k] for k, field in enumerate(STATE)], axis=0)
    pending = np.flatnonzero(~(same & (rows["level"] >= LEVELS[level])) | _without_library(rows))
    before = rows[pending]
    rows[pending] = np.zeros(1, RECORD)
    for k, field in enumerate(STATE):
        rows[field][pending] = states[pending, k]
    records = FileRecords(names, rows, kept.reasons)
    del kept  # they are as large as the new ones
    if not LEVELS[level]:
        pending = pending[:0]
    threads = max(reads_at_once, cores.decoding_threads())
    try:
        for count, _ in enumerate(_checked(records, pending, LEVELS[level], check, threads), 1):
            if count % SAVE_EVERY == 0:
                _save(path, records)
    finally:
        if len(pending) or had != len(names):
            _save(path, records)
    before = before[: len(pending)]
    both = (before["level"] > 0) & (rows["level"][pending] > 0)
    differs = both & (before["digest"] != rows["digest"][pending])
    changed = [names[i] for i in pending[differs]]
    return records, Changes(changed, len(names) - known, had - known)


def _without_library(rows: np.ndarray) -> np.ndarray:
    """Whether each file, checked in another environment, needs a library that is not installed here."""
    lacking = np.zeros(len(rows), bool)
    for name in EXTRAS:
        chosen = np.flatnonzero(rows["format"] == name.encode())
        try:
            if len(chosen):
                import_library(name)
        except UnavailableFormat:
            lacking[chosen] = [needs_library(name, r["bits"], r["channels"]) for r in rows[chosen]]
    return lacking


def file_state(path: str | bytes | Path) -> tuple[int, int, int]:
    """The fields `STATE` of a file; zeros where there is none, such as for a link that leads nowhere."""
    # NOTE: nobody can set ctime, so that it also shows a change after which mtime was set back.
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0, 0
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _checked(
    records: FileRecords, pending: np.ndarray, level: int, check: Check, threads: int
) -> Iterator[int]:
    """Checks files, several at a time; yields the number of each, in order."""
    failed = 0  # files in a row that a network did not deliver

    def outcome(i: int) -> tuple[int, dict, str]:
        nonlocal failed
        try:
            fields, failed = check(i), 0
            return level, fields, ""
        except (OSError, ValueError) as error:
            text = (isinstance(error, OSError) and error.strerror) or str(error) or "unreadable"
            failed = failed + 1 if isinstance(error, TransientError) else 0
            if isinstance(error, TransientError) and failed > MAX_FAILED:
                raise UserError(
                    f"{error.filename}: cannot be read ({text}), nor can the {MAX_FAILED} files before it."
                ) from error
            # A library may be installed later, a network mended: the file is checked again by every command.
            reached = 0 if isinstance(error, UnavailableFormat | TransientError) else level
            return reached, {}, text.splitlines()[0][:200]

    if not len(pending):
        return
    with (
        concurrent.futures.ThreadPoolExecutor(threads) as pool,
        progress.bar(None, "checking images", total=len(pending)) as bar,
    ):
        for start in range(0, len(pending), CHUNK):
            chunk = pending[start : start + CHUNK].tolist()
            for i, (reached, fields, reason) in zip(chunk, pool.map(outcome, chunk), strict=True):
                records.note(i, reached, fields, reason)
                bar.update()
                yield i


@dataclasses.dataclass
class _KeptRecords:
    """Records as in their file. names: joined (`array_file`), since separate strings take more memory."""

    names: np.ndarray
    rows: np.ndarray
    reasons: list[str]

    def rows_of(self, names: Names) -> tuple[np.ndarray, np.ndarray]:
        """(rows of these names, zeros without a record; whether there is one). Rows may be `self.rows`."""
        if array_file.are_joined(self.names, names):
            return self.rows, np.ones(len(names), bool)
        rows, had_record = np.zeros(len(names), RECORD), np.zeros(len(names), bool)
        number = {name: i for i, name in enumerate(names)}
        for row, name in enumerate(array_file.split_texts(self.names)):
            i = number.get(name)
            if i is not None:
                rows[i], had_record[i] = self.rows[row], True
        return rows, had_record


def _load(path: Path) -> _KeptRecords:
    """The records in a file; none where it is missing, damaged, or of another version."""
    arrays = array_file.read_joined(path)
    if arrays is not None and arrays.keys() == {"names", "rows", "reasons"}:
        names, rows, reasons = (
            arrays["names"],
            arrays["rows"],
            list(array_file.split_texts(arrays["reasons"])),
        )
        count = len(names) - np.count_nonzero(names)  # of zeros, each of which ends a name
        if rows.dtype == RECORD and len(rows) == count and rows["reason"].max(initial=0) <= len(reasons):
            return _KeptRecords(names, rows, reasons)
    return _KeptRecords(np.zeros(0, np.uint8), np.zeros(0, RECORD), [])


def _save(path: Path, records: FileRecords) -> None:
    names, reasons = (np.array(texts, object) for texts in (records.names, records.reasons))
    _write_cache(path, {"names": names, "rows": records.rows, "reasons": reasons})


def kept_arrays(key: str, make: Callable[[], dict[str, np.ndarray]], anew: bool = False) -> dict[str, Any]:
    """Arrays that depend on `key` alone: from the cache, else, or always with `anew`, from `make`.

    Arrays of objects hold texts.
    """
    path = _cache_path("tables", key)
    arrays = None if anew else array_file.read_arrays(path)
    if arrays is None:
        arrays = make()
        _write_cache(path, arrays)
    return arrays


def _cache_path(folder: str, key: str) -> Path:
    key = f"{FORMAT_VERSION}\0{key}"
    return cache_folder() / folder / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.npz"


def _write_cache(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays; where that fails, a line on stderr says why."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        array_file.write_arrays(path, arrays)
    except OSError as error:
        print(
            f"{path}: cannot be written ({error.strerror}); the images are examined again next time. "
            "SIMSIAM_TF_CACHE chooses another folder.",
            file=sys.stderr,
        )
