"""Checkpoints: a checkpoint is there whole or not at all.

    checkpoints/step-00001200/  manifest.json  state.index  state.data-…  interval.f64

A commit is written under a temporary name, read back, synced and renamed. The newest that
verifies by its SHA-256 is restored; damaged ones are passed over with a warning. Where a disk has
no room for one more, the oldest make room, but never the newest.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from simsiam_tf.runtime import atomic_files
from simsiam_tf.runtime.errors import UserError

log = logging.getLogger("simsiam_tf")

INTERVAL = "interval.f64"
MANIFEST_BYTES = 2**24  # what a manifest may have; ours have some kilobytes
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError, RecursionError)


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: holds one sub-folder a commit; created when missing, leftovers are swept.
        state: what is saved, by name (model, optimizer, …).
        keep: commits kept, the newest.
        writes: False for a process that only restores.
        about: JSON for every manifest: the run's configuration and what it is made with.

    Raises:
        UserError: the folder is a link.
    """

    def __init__(
        self,
        folder: Path,
        state: dict[str, Any],
        keep: int = 2,
        writes: bool = True,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.folder, self.keep, self.writes, self.about = folder, keep, writes, about or {}
        self.checkpoint = tf.train.Checkpoint(**state)
        if not writes:
            return
        atomic_files.check_no_links(folder.parent, (), (folder.name,))
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in (*folder.glob(".writing-*"), *folder.glob(".removing-*")):
            atomic_files.remove_path(leftover)

    def steps(self) -> list[int]:
        """Steps of all commits, newest first, verified or not."""
        return _steps(self.folder)

    def save(self, step: int, extra: dict[str, Any], interval: np.ndarray | None = None) -> None:
        """Checkpoints the state as of `step`, with `extra` (JSON) in the manifest.

        interval: float64 [n, 2], kept in a file of its own, since n may be large.

        Raises:
            OSError, tf.errors.OpError: it could not be written; the newest that was there still is.
        """
        final = _path(self.folder, step)
        if not self.writes or (final.exists() and _manifest(final)):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.folder.is_symlink():
            raise NotADirectoryError(errno.ENOTDIR, "it is a link, which is not followed", str(self.folder))
        while True:
            try:
                self._write(final, step, extra, interval)
                break
            except (OSError, tf.errors.OpError) as error:
                newest, *older = self.steps() or (0,)
                if not older or not _no_room(error) or not _manifest(_path(self.folder, newest)):
                    raise
                log.warning("no room for the checkpoint of step %d: that of %d is removed", step, older[-1])
                _remove(_path(self.folder, older[-1]))
        for old in self.steps()[self.keep :]:
            _remove(_path(self.folder, old))

    def _write(self, final: Path, step: int, extra: dict[str, Any], interval: np.ndarray | None) -> None:
        writing = self.folder / f".writing-{step:08d}"
        atomic_files.remove_path(writing)
        try:
            writing.mkdir()
            self.checkpoint.write(str(writing / "state"))
            _read_back(writing / "state")
            if interval is not None:
                (writing / INTERVAL).write_bytes(np.asarray(interval, "<f8").tobytes())
            sums = {p.name: _sha256(p) for p in sorted(writing.iterdir())}
            body = {"step": step, "files": sums, "extra": extra, **self.about}
            text = json.dumps({"sha256": _digest(body), **body}, indent=1)
            if len(text) > MANIFEST_BYTES:  # which `restore` would refuse
                raise OSError(errno.EFBIG, f"its manifest has {len(text)} bytes, above {MANIFEST_BYTES}")
            (writing / "manifest.json").write_text(text, encoding="utf-8")
            for path in (*writing.iterdir(), writing):
                _sync(path)
            _remove(final)  # a damaged one
            os.rename(writing, final)
            _sync(self.folder)
        except BaseException:
            atomic_files.remove_path(writing)
            raise

    def restore(self) -> dict[str, Any] | None:
        """Restores the newest whole commit; its manifest, or None where there is no commit.

        The manifest's "interval" is what `save` was given, float64 [n, 2], where it was given any.

        Raises:
            UserError: there are commits, but none is whole.
        """
        steps = self.steps()
        for step in steps:
            path = _path(self.folder, step)
            manifest = _manifest(path)
            try:
                if manifest:
                    self.checkpoint.read(str(path / "state")).assert_consumed()
                    if INTERVAL in manifest["files"]:
                        data = (path / INTERVAL).read_bytes()
                        manifest["interval"] = np.frombuffer(data, "<f8").reshape(-1, 2)
                    return manifest
            except (*DAMAGE, tf.errors.OpError):  # whole, but of something else
                pass
            log.warning("checkpoint %s is damaged: it is passed over for the one before it", path)
        if steps:
            raise UserError(
                f"{self.folder}: none of its {len(steps)} checkpoints is whole. Restore them from "
                "a copy, or start anew with another `workdir`."
            )
        return None


def newest_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the newest whole commit in a folder."""
    return next(filter(None, (_manifest(_path(folder, step)) for step in _steps(folder))), None)


def _steps(folder: Path) -> list[int]:
    present = folder.iterdir() if folder.is_dir() else ()
    names = (re.fullmatch(r"step-(\d{8,12})", p.name) for p in present)
    return sorted((int(m[1]) for m in names if m), reverse=True)


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _manifest(path: Path) -> dict[str, Any] | None:
    """The manifest, if it and every file that it names is there, unchanged, and no link elsewhere."""
    try:
        if not stat.S_ISDIR(path.lstat().st_mode):
            return None
        present = {p.name: p.lstat() for p in path.iterdir()}
        if not all(stat.S_ISREG(s.st_mode) for s in present.values()):
            return None
        if present["manifest.json"].st_size > MANIFEST_BYTES:
            return None
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        digest, body = manifest["sha256"], {k: v for k, v in manifest.items() if k != "sha256"}
        sums = manifest["files"]
        whole = (
            digest == _digest(body)
            and path.name == f"step-{manifest['step']:08d}"
            and {"manifest.json", *sums} == set(present)
            and "state.index" in sums
            and all(_sha256(path / name) == known for name, known in sums.items())
        )
    except DAMAGE:
        return None
    return manifest if whole else None


def _digest(body: dict[str, Any]) -> str:
    """SHA-256 of a manifest's content, whatever its layout."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _read_back(prefix: Path) -> None:
    """Reads every tensor, which TensorFlow holds against the sums that it wrote."""
    reader = tf.train.load_checkpoint(str(prefix))
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(path: Path) -> None:
    """A commit, by renaming it first: what a crash leaves of it is no commit any more."""
    if path.is_symlink() or path.exists():
        gone = path.with_name(f".removing-{path.name.removeprefix('step-')}")
        atomic_files.remove_path(gone)
        path.rename(gone)
        atomic_files.remove_path(gone)


def _no_room(error: Exception) -> bool:
    """Whether a disk or a quota is full. TensorFlow's errors tell by their text alone."""
    numbers = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in numbers or any(os.strerror(n) in str(error) for n in numbers)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
