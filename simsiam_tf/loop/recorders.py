"""Recorders: classes that write the metrics of a run to files or services.

An error in a recorder never ends the run.

A new recorder is a row of `RECORDERS`: a class with the three methods of `Recorder`, whose constructor takes
a `RecordedRun`. It may also have a method `close()`, and `package`, the name of a package that it needs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.plugins.scalar.summary_v2 import scalar_pb

from simsiam_tf.loop.metrics_file import MetricsFile
from simsiam_tf.runtime.errors import UserError, nearest

log = logging.getLogger("simsiam_tf")

NO_METRICS = ("step", "epoch", "images", "knn_queries", "recall1_queries")  # entries of records
# group → prefix of the names of its metrics
PREFIXES = {"train": "train/", "epoch": "eval/", "final": "eval/final_", "perf": "perf/"}


class Recorder(Protocol):
    """Shows numbers, pictures and texts. Its methods may raise any error: the run reports it and goes on."""

    def scalars(self, step: int, values: Mapping[str, Any], group: str) -> None:
        """Shows metrics by name.

        values: metrics, and for evaluations "epoch" or "images", which are none: see `named_scalars`.
        group: "train" (steps), "epoch" and "final" (evaluations), or "perf" (speed).
        """

    def picture(self, name: str, picture: np.ndarray) -> None:
        """Shows a picture, uint8 [H, W, C]."""

    def text(self, name: str, text: str) -> None:
        """Shows a text."""


@dataclasses.dataclass(frozen=True)
class RecordedRun:
    """Describes a run to its recorders.

    folder: the work folder. rows: all records (`MetricsFile.rows`), a list that grows.
    """

    folder: Path
    configuration: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def id(self) -> str:
        """A name of the run, the same when the run is continued."""
        return hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]


def named_scalars(values: Mapping[str, Any], group: str) -> dict[str, Any]:
    """Puts the group's prefix before the name of each metric, as in "train/loss"."""
    return {f"{PREFIXES[group]}{k}": v for k, v in values.items() if k not in NO_METRICS}


class TensorBoard:
    """Writes event files into WORKDIR/tb; when they are removed, writes all records anew."""

    def __init__(self, run: RecordedRun) -> None:
        self._run, self._folder = run, run.folder / "tb"
        self._open()

    def _open(self) -> None:
        before = set(self._folder.glob("events.*"))
        self._writer = tf.summary.create_file_writer(str(self._folder))
        self._writer.init()
        self._writer.flush()
        self._files = set(self._folder.glob("events.*")) - before

    def scalars(self, step: int, values: Mapping[str, Any], group: str) -> None:
        # TensorFlow does not notice that its file was removed.
        if group != "perf" and self._files and not any(file.exists() for file in self._files):
            log.warning("%s was removed; it is made anew from the records", self._folder)
            self._open()
            for row in self._run.rows[:-1]:
                group_of_row = "train" if "loss" in row else "epoch" if "epoch" in row else "final"
                self._write(row["step"], row, group_of_row)
        self._write(step, values, group)

    def _write(self, step: int, values: Mapping[str, Any], group: str) -> None:
        summary = Summary()  # one event for all numbers, since one for each takes five times as long
        for name, value in named_scalars(values, group).items():
            summary.MergeFrom(scalar_pb(name, value))
        with self._writer.as_default():
            tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step=step)

    def picture(self, name: str, picture: np.ndarray) -> None:
        with self._writer.as_default():
            tf.summary.image(name, picture[None], step=0)

    def text(self, name: str, text: str) -> None:
        with self._writer.as_default():
            tf.summary.text(name, text, step=0)

    def close(self) -> None:
        self._writer.close()


class WandB:
    """Sends metrics to Weights & Biases, whose environment variables apply, such as WANDB_MODE=offline."""

    package = "wandb"

    def __init__(self, run: RecordedRun) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "simsiam_tf"), name=run.folder.name, dir=str(run.folder),
            id=run.id, resume="allow", config=run.configuration,
        )  # fmt: skip
        self._run.define_metric("*", step_metric="step")  # or wandb drops steps that come twice

    def scalars(self, step: int, values: Mapping[str, Any], group: str) -> None:
        self._run.log({"step": step, **named_scalars(values, group)})

    def picture(self, name: str, picture: np.ndarray) -> None:
        self._run.log({name: self._wandb.Image(np.squeeze(picture))})

    def text(self, name: str, text: str) -> None:
        self._run.summary[name] = text

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """Writes to MLFLOW_TRACKING_URI, or else to WORKDIR/mlruns."""

    package = "mlflow"

    def __init__(self, run: RecordedRun) -> None:
        import mlflow  # pyright: ignore[reportMissingImports]

        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 would rather have a database
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (run.folder / "mlruns").as_uri()
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "simsiam_tf")
        existing = self._client.get_experiment_by_name(name)
        experiment = existing.experiment_id if existing else self._client.create_experiment(name)
        earlier = self._client.search_runs([experiment], f"tags.simsiam_tf_run = '{run.id}'")
        if earlier:
            self._run_id = earlier[0].info.run_id
            return
        created = self._client.create_run(
            experiment, tags={"simsiam_tf_run": run.id}, run_name=run.folder.name
        )
        self._run_id = created.info.run_id
        for key, value in run.configuration.items():
            self._client.log_param(self._run_id, key, value)

    def scalars(self, step: int, values: Mapping[str, Any], group: str) -> None:
        for name, value in named_scalars(values, group).items():
            self._client.log_metric(self._run_id, name, value, step=step)

    def picture(self, name: str, picture: np.ndarray) -> None:
        self._client.log_image(self._run_id, np.squeeze(picture), f"{name}.png")

    def text(self, name: str, text: str) -> None:
        self._client.log_text(self._run_id, text, f"{name}.txt")

    def close(self) -> None:
        self._client.set_terminated(self._run_id)


# NOTE: the class of "jsonl" is not made from this table: `Loop` makes a MetricsFile for every run.
RECORDERS: dict[str, type] = {
    "tensorboard": TensorBoard, "jsonl": MetricsFile, "wandb": WandB, "mlflow": MLflow,
}  # fmt: skip


def recorder_names(record: str) -> list[str]:
    """Splits the option `record`, names of recorders with commas between them.

    Raises:
        UserError: a name is unknown, or its package is not installed.
    """
    names = [name.strip() for name in record.split(",") if name.strip()]
    for name in names:
        if name not in RECORDERS:
            raise UserError(f"record={name}: no such recorder.{nearest(name, RECORDERS)}")
        package = getattr(RECORDERS[name], "package", None)
        if package and importlib.util.find_spec(package) is None:
            raise UserError(
                f"record={name}: needs the package {package}. Install it: pip install 'simsiam-tf[{name}]'"
            )
    return names
