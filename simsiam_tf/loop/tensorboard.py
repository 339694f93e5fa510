"""TensorBoard: the figures of records, and pictures. Trouble with its files never ends a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.scalar.summary_v2 import scalar_pb


class TensorBoard:
    """One event file. folder: where it lies; None for a process that shows nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.begin()

    def begin(self) -> None:
        """Opens a new event file."""
        self._writer = tf.summary.create_noop_writer()
        self._files: set[Path] = set()
        if self.folder is None:
            return
        with contextlib.suppress(tf.errors.OpError):
            before = self._present()
            self._writer = tf.summary.create_file_writer(str(self.folder))
            self._writer.init()
            self._writer.flush()
            self._files = self._present() - before

    def vanished(self) -> bool:
        """Whether the event file was removed, which TensorFlow does not notice."""
        return bool(self._files) and not any(f.exists() for f in self._files)

    def record(self, record: dict) -> None:
        """Shows a line of metrics.jsonl: of training, of an epoch's end, or the final one."""
        prefix = "train/" if "loss" in record else "eval/" if "epoch" in record else "eval/final_"
        shown = {f"{prefix}{k}": v for k, v in record.items() if k not in ("step", "epoch", "images")}
        self.scalars(record["step"], shown)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Shows numbers by name."""
        summary = Summary()  # one event of all of them: an operation for each takes five times as long
        for name, value in values.items():
            summary.MergeFrom(scalar_pb(name, value))
        with self._open():
            tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step=step)

    def image(self, grid: np.ndarray) -> None:
        """Shows a picture, uint8 [H, W, C]."""
        with self._open():
            tf.summary.image("views", grid[None], step=0)

    def close(self) -> None:
        """Ends the event file."""
        with contextlib.suppress(tf.errors.OpError):
            self._writer.close()

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        with contextlib.suppress(tf.errors.OpError), self._writer.as_default():
            yield

    def _present(self) -> set[Path]:
        return set(self.folder.glob("events.*")) if self.folder and self.folder.is_dir() else set()
