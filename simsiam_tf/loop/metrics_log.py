"""The metrics of a run on their way to the progress bar, train.log and the recorders."""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import Any

import numpy as np

from simsiam_tf import config as configs
from simsiam_tf.evaluate.diagnosis import Diagnosis
from simsiam_tf.loop.metrics_file import MetricsFile
from simsiam_tf.loop.recorders import NO_METRICS, RECORDERS, RecordedRun, recorder_names
from simsiam_tf.loop.task import Task
from simsiam_tf.loop.workdir import Workdir, error_text
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.errors import as_flags

log = logging.getLogger("simsiam_tf.run")


class MetricsLog:
    """Collects the metrics of steps into records: one every `log_every` steps, and one at the end.

    interval: [loss, metric] of each step since the last record; checkpoints hold it.
    records: the training records, oldest first.

    Args:
        task, workdir: task and work folder of the run.
        metrics_file: the run's earlier records (`MetricsFile.rewind`); new ones are added.
        step: the step at which the run starts or continues.
        interval: the attribute `interval` as the checkpoint has it, [n, 2].
    """

    def __init__(
        self, task: Task, workdir: Workdir, metrics_file: MetricsFile, step: int, interval: np.ndarray
    ) -> None:
        self.task, self.config, self.metrics_file = task, task.config, metrics_file
        self.interval: list[list[float]] = interval.tolist()
        rows = metrics_file.rows
        needed = ("loss", "loss_spread", *self.task.record_values(np.ones(1), None))
        self.records = [row for row in rows if all(_is_number(row.get(name)) for name in needed)]
        self.accuracy: dict[str, float] = next((r for r in reversed(rows) if "loss" not in r), {})
        self._evaluated_step = self.accuracy.get("step", 0)
        self.diagnosis = self._diagnose()
        self._seconds = self._waited = 0.0
        self._steps, self._started = 0, False
        self._failing: set[str] = set()
        self._recorders: dict[str, Any] = {"jsonl": metrics_file}
        run = RecordedRun(workdir.path, dataclasses.asdict(self.config), rows)
        for name in recorder_names(self.config.record) if workdir.writes else ():
            if name not in self._recorders:
                try:
                    self._recorders[name] = RECORDERS[name](run)
                except Exception as error:
                    self._report_error(name, error)
        self._tell("text", "options", configs.to_flags(self.config))
        total = self.task.components.total_steps
        self._bar = progress.bar(
            None, total=total, initial=step, unit="step", dynamic_ncols=True, delay=0, maxinterval=20.0,
            disable=not (workdir.writes and total),
        )  # fmt: skip

    def add_steps(self, rows: np.ndarray, seconds: float) -> None:
        """Adds the steps of one call of the compiled loop, which took `seconds`.

        rows: loss, metric and seconds waited for data of each step, [n, 3].
        """
        self.interval += rows[:, :2].tolist()
        self._seconds += seconds
        self._waited += float(np.sum(rows[:, 2]))
        self._steps += len(rows)
        loss, metric, _ = rows[-1]
        shown = {"loss": f"{loss:.3f}"}
        if not math.isnan(metric):  # no image of the batch has one
            shown[self.task.metric_label] = f"{metric:.2f}"
        if self._evaluated_step and self.task.evaluation_name in self.accuracy:
            percent = 100 * self.accuracy[self.task.evaluation_name]
            shown[f"{self.task.evaluation_label} at step {self._evaluated_step:.0f}"] = f"{percent:.1f}%"
        self._bar.set_postfix(shown, refresh=False)
        progress.advance(self._bar, len(rows), starts=not self._started)
        self._started = True

    def latest(self) -> dict[str, float]:
        """Returns the loss and the metric of the last step, as logs for Keras callbacks."""
        names = ("loss", self.task.metric_name)
        last = self.records[-1] if self.records else {}
        values = self.interval[-1] if self.interval else [last.get(name, 0.0) for name in names]
        return dict(zip(names, values, strict=True))

    def add_record(self, step: int, z: np.ndarray | None) -> Diagnosis:
        """Writes the record of the steps from the last record up to `step`; returns the new diagnosis.

        z: embeddings of the last batch, [B, d]; None if a loss was not finite.
        """
        losses, metrics = np.array(self.interval).T
        values = {
            "loss": float(losses.mean()), "loss_spread": float(losses.std()),
            **self.task.record_values(metrics, z), **self.task.learning_rates(step - 1),
        }  # fmt: skip
        seconds = max(self._seconds, 1e-9)
        perf = {
            "images_per_second": self._steps * self.config.batch_size / seconds,
            "data_wait": self._waited / seconds,
        }
        self.interval, self._steps = [], 0
        self._seconds = self._waited = 0.0
        self._tell("scalars", step, values, "train")
        self._tell("scalars", step, perf, "perf")
        self.records.append(self.metrics_file.rows[-1])
        self._diagnose_anew(step)
        log.info("step %d %s %s", step, _values_text(values), _values_text(perf))
        return self.diagnosis

    def _diagnose(self) -> Diagnosis:
        return self.task.diagnose(self.records, self.accuracy if self._evaluated_step else {})

    def _diagnose_anew(self, step: int) -> None:
        """Sets the diagnosis, and says so where it has another name than before."""
        former, self.diagnosis = self.diagnosis, self._diagnose()
        if self.diagnosis.name != former.name:
            log.warning("step %d: %s", step, self.diagnosis)
            text = as_flags(str(self.diagnosis), configs.field_types(type(self.config)))
            self._tell("text", "diagnosis", f"step {step}: {text}")

    def set_diverged(self, reason: str) -> None:
        """Sets the diagnosis to a divergence, whatever the records say."""
        self.diagnosis = dataclasses.replace(self.diagnosis, name="divergence", reason=reason)
        log.warning("%s", self.diagnosis)

    def add_evaluation(self, step: int, epoch: int | None, accuracy: dict[str, float]) -> None:
        """Writes accuracies in [0, 1] by name.

        epoch: epochs that have ended, those of `start_epoch` included; None for the final evaluation.
        """
        self.accuracy, self._evaluated_step = accuracy, step
        first = {"images": "all"} if epoch is None else {"epoch": epoch}
        self._tell("scalars", step, {**first, **accuracy}, "final" if epoch is None else "epoch")
        end = "end" if epoch is None else f"epoch {epoch}"
        log.warning("step %d, %s: %s", step, end, _values_text(accuracy))
        self._diagnose_anew(step)

    def add_picture(self, name: str, picture: np.ndarray) -> None:
        """Sends a picture, uint8 [H, W, C], to the recorders."""
        self._tell("picture", name, picture)

    def close(self) -> None:
        """Ends the progress bar and the recorders."""
        self._bar.close()
        self._tell("close")

    def _tell(self, method: str, *arguments: Any) -> None:
        """Calls a method of every recorder; of its errors in a row it reports the first."""
        for name, recorder in self._recorders.items():
            try:
                if method != "close" or hasattr(recorder, "close"):
                    getattr(recorder, method)(*arguments)
                self._failing.discard(name)
            except Exception as error:
                self._report_error(name, error)

    def _report_error(self, name: str, error: Exception) -> None:
        if name not in self._failing:
            log.warning("record=%s: %s", name, error_text(error))
        self._failing.add(name)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _values_text(values: dict[str, float]) -> str:
    return "  ".join(f"{k} {v:.4g}" for k, v in values.items() if k not in NO_METRICS)
