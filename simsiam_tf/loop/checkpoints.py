"""Checkpoints: each is complete or does not exist.

    checkpoints/step-00001200/  manifest.json  state.index  state.data-…

A checkpoint is written under a temporary name, read back, synced and renamed. `restore` takes the newest
one whose SHA-256 sums are right, with a warning for each newer one. On a full disk the oldest checkpoints are
removed, but never the newest.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from simsiam_tf.runtime import atomic_files
from simsiam_tf.runtime.digests import json_sha256, sha256
from simsiam_tf.runtime.errors import UserError

log = logging.getLogger("simsiam_tf")

MANIFEST_BYTES = 2**24  # a larger manifest is refused; usual ones have some kilobytes


def untracked(state: dict[str, Any], variables: Iterable[keras.Variable]) -> dict[str, Any]:
    """What a checkpoint of `state` has to hold besides, so that it has all of the variables.

    TensorFlow does not find those of layers that another library keeps in a dictionary of lists.
    """
    root = tf.train.Checkpoint(**state)  # a view does not keep it
    found = {id(trackable) for trackable in tf.train.TrackableView(root).descendants()}
    missing = [variable for variable in variables if id(variable) not in found]
    return {"untracked": missing} if missing else {}


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: gets a sub-folder for each checkpoint. If `writes`, it is created, and leftovers of a crash in
            it are removed.
        state: objects to save, by name (model, optimizer, …).
        keep: number of newest checkpoints to keep.
        writes: False for a process that only restores.
        about: JSON entries of every manifest: the run's configuration, replicas and versions of libraries.

    Raises:
        UserError: the folder is a link or a file; checked if `writes`.
    """

    def __init__(
        self, folder: Path, state: dict[str, Any], keep: int = 2, writes: bool = True,
        about: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.keep, self.writes, self.about = folder, keep, writes, about or {}
        self.checkpoint = tf.train.Checkpoint(**state)
        if writes:
            atomic_files.check_no_links(folder.parent, (), (folder.name,))
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in (*folder.glob(".writing-*"), *folder.glob(".removing-*")):
                atomic_files.remove_path(leftover)

    def steps(self) -> list[int]:
        """Returns the steps of all checkpoints, damaged ones too, newest first."""
        return _steps(self.folder)

    def save(self, step: int, progress: dict[str, Any]) -> None:
        """Saves the state as of `step`, with `progress` (JSON) in the manifest, unless it is saved already.

        Raises:
            OSError, tf.errors.OpError: the checkpoint could not be written; the newest earlier one is kept.
        """
        if not self.writes or _valid_manifest(_path(self.folder, step)):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.folder.is_symlink():
            raise NotADirectoryError(errno.ENOTDIR, "it is a link, which is not followed", str(self.folder))
        while True:
            try:
                self._write(step, progress)
                break
            except (OSError, tf.errors.OpError) as error:
                newest, *older = self.steps() or (0,)
                if not older or not _disk_full(error) or not _valid_manifest(_path(self.folder, newest)):
                    raise
                log.warning("no room for the checkpoint of step %d: that of %d is removed", step, older[-1])
                _remove(_path(self.folder, older[-1]))
        for old in self.steps()[self.keep :]:
            _remove(_path(self.folder, old))

    def _write(self, step: int, progress: dict[str, Any]) -> None:
        final, writing = _path(self.folder, step), self.folder / f".writing-{step:08d}"
        atomic_files.remove_path(writing)
        try:
            writing.mkdir()
            self.checkpoint.write(str(writing / "state"))
            _read_back(writing / "state")
            sums = {p.name: sha256(p) for p in sorted(writing.iterdir())}
            body = {"step": step, "files": sums, "progress": progress, **self.about}
            text = json.dumps({"sha256": json_sha256(body), **body}, indent=1)
            if len(text) > MANIFEST_BYTES:  # `restore` would refuse it
                raise OSError(errno.EFBIG, f"its manifest has {len(text)} bytes, above {MANIFEST_BYTES}")
            (writing / "manifest.json").write_text(text, encoding="utf-8")
            for path in (*writing.iterdir(), writing):
                _sync(path)
            _remove(final)  # it exists only if it is damaged
            os.rename(writing, final)
            _sync(self.folder)
        except BaseException:
            atomic_files.remove_path(writing)
            raise

    def restore(self) -> dict[str, Any] | None:
        """Restores the newest intact checkpoint; returns its manifest, or None if there is no checkpoint.

        Raises:
            UserError: all checkpoints are damaged or of another model.
        """
        steps = self.steps()
        for path in (_path(self.folder, step) for step in steps):
            manifest = _valid_manifest(path)
            try:
                if manifest:
                    self.checkpoint.read(str(path / "state")).assert_consumed()
                    return manifest
            except (OSError, ValueError, AssertionError, tf.errors.OpError):  # of another model
                pass
            log.warning(
                "checkpoint %s is damaged or of another model: it is passed over for the one before it", path
            )
        if steps:
            raise UserError(
                f"{self.folder}: none of its {len(steps)} checkpoints is whole. Restore them from "
                "a copy, or start anew with another `workdir`."
            )
        return None


def newest_manifest(folder: Path) -> dict[str, Any] | None:
    """Returns the manifest of the newest intact checkpoint in a folder; None if there is none."""
    return next(filter(None, (_valid_manifest(_path(folder, step)) for step in _steps(folder))), None)


def _steps(folder: Path) -> list[int]:
    names = (re.fullmatch(r"step-(\d{8,12})", path.name) for path in folder.glob("step-*"))
    return sorted((int(name[1]) for name in names if name), reverse=True)


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _valid_manifest(path: Path) -> dict[str, Any] | None:
    """Returns a checkpoint's manifest; None unless its folder has exactly the manifest's files, unchanged.

    path: the folder of the checkpoint. Neither the folder nor a file in it may be a link.
    """
    manifest_file = path / "manifest.json"
    try:
        files = list(path.iterdir())
        if path.is_symlink() or not all(p.is_file() and not p.is_symlink() for p in files):
            return None
        if manifest_file.stat().st_size > MANIFEST_BYTES:
            return None
        manifest = json.loads(manifest_file.read_text(encoding="utf-8"))
        body = {k: v for k, v in manifest.items() if k != "sha256"}
        sums = manifest["files"]
        valid = (
            manifest["sha256"] == json_sha256(body)
            and path == _path(path.parent, manifest["step"])
            and {"manifest.json", *sums} == {p.name for p in files}
            and "state.index" in sums
            and all(sha256(path / name) == digest for name, digest in sums.items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return manifest if valid else None


def _read_back(prefix: Path) -> None:
    """Reads every tensor of a checkpoint; TensorFlow raises an error where a checksum is wrong."""
    reader = tf.train.load_checkpoint(str(prefix))
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)


def _remove(path: Path) -> None:
    """Removes a checkpoint, by renaming it first: a crash in between leaves no half checkpoint."""
    if path.is_symlink() or path.exists():
        removing = path.with_name(f".removing-{path.name.removeprefix('step-')}")
        atomic_files.remove_path(removing)
        path.rename(removing)
        atomic_files.remove_path(removing)


def _disk_full(error: Exception) -> bool:
    """Returns whether a disk or a quota is full; TensorFlow's errors show it only in their text."""
    numbers = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in numbers or any(os.strerror(n) in str(error) for n in numbers)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
