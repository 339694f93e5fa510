"""Commits: a checkpoint is there whole or not at all.

    checkpoints/step-00001200/  manifest.json  state.index  state.data-…

A commit is written under a temporary name, synced, verified by its SHA-256 and renamed. The
newest that verifies is restored; damaged ones are passed over with a warning.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

import tensorflow as tf

from simsiam_tf.errors import UserError

log = logging.getLogger("simsiam_tf")


class Commits:
    """The checkpoints of one run.

    Args:
        folder: holds one sub-folder a commit; created when missing, leftovers are swept.
        state: what is saved, by name (model, optimizer, …).
        keep: commits kept, the newest.
        writes: False for a process that only restores.
    """

    def __init__(self, folder: Path, state: dict[str, Any], keep: int = 2, writes: bool = True) -> None:
        self.folder, self.keep, self.writes = folder, keep, writes
        self.checkpoint = tf.train.Checkpoint(**state)
        if not writes:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".writing-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def steps(self) -> list[int]:
        """Steps of all commits, newest first, verified or not."""
        present = self.folder.iterdir() if self.folder.is_dir() else ()
        names = (re.fullmatch(r"step-(\d{8,})", p.name) for p in present)
        return sorted((int(m[1]) for m in names if m), reverse=True)

    def save(self, step: int, extra: dict[str, Any]) -> None:
        """Commits the state as of `step`, with `extra` (JSON) in the manifest."""
        final = self.folder / f"step-{step:08d}"
        if not self.writes:
            return
        if final.exists() and self._manifest(final):
            return
        writing = self.folder / f".writing-{step:08d}"
        shutil.rmtree(writing, ignore_errors=True)
        shutil.rmtree(final, ignore_errors=True)
        writing.mkdir()
        self.checkpoint.write(str(writing / "state"))
        files = {p.name: _sha256(p) for p in sorted(writing.iterdir())}
        manifest = {"step": step, "files": files, "extra": extra}
        (writing / "manifest.json").write_text(json.dumps(manifest, indent=1))
        for path in (*writing.iterdir(), writing):
            _sync(path)
        os.rename(writing, final)
        _sync(self.folder)
        for old in self.steps()[self.keep :]:
            shutil.rmtree(self.folder / f"step-{old:08d}", ignore_errors=True)

    def restore(self) -> dict[str, Any] | None:
        """Restores the newest whole commit; its manifest, or None where there is no commit.

        Raises:
            UserError: there are commits, but none is whole.
        """
        steps = self.steps()
        for step in steps:
            path = self.folder / f"step-{step:08d}"
            manifest = self._manifest(path)
            if manifest:
                self.checkpoint.read(str(path / "state")).assert_consumed()
                return manifest
            log.warning("checkpoint %s is damaged; trying the one before it", path)
        if steps:
            raise UserError(
                f"{self.folder}: none of its {len(steps)} checkpoints is whole. Restore them from "
                "a copy, or start anew with another --workdir."
            )
        return None

    def _manifest(self, path: Path) -> dict[str, Any] | None:
        """The manifest, if every file that it names is there and unchanged."""
        try:
            manifest = json.loads((path / "manifest.json").read_text())
            files = manifest["files"]
            whole = bool(files) and all(
                name == Path(name).name and _sha256(path / name) == digest for name, digest in files.items()
            )
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return None
        return manifest if whole else None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
