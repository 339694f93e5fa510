"""What a run says: progress, metrics.jsonl, TensorBoard and the log, of the same figures."""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import Any, Protocol

import keras
import numpy as np

from simsiam_tf.evaluate.diagnosis import Diagnosis
from simsiam_tf.loop.run_components import RunComponents
from simsiam_tf.loop.tensorboard import TensorBoard
from simsiam_tf.loop.workdir import Workdir
from simsiam_tf.runtime import progress

log = logging.getLogger("simsiam_tf")


class RunMetrics(Protocol):
    """What a kind of run is known by, besides its loss.

    name: of the figure of a step (`ViewModel.figure`). label: of it in the progress bar.
    score, score_label: the same for an evaluation's figure, in [0, 1].
    """

    metric_name: str
    metric_label: str
    evaluation_name: str
    evaluation_label: str

    def record_values(self, figures: np.ndarray, z: np.ndarray | None) -> dict[str, float]:
        """A record's values beside the loss, of the steps' figures and the last step's "z".

        z: [B, d]; None when a loss was no number.
        """

    def learning_rates(self, optimizer: keras.optimizers.Optimizer, step: int) -> dict[str, float]:
        """The learning rates of a step, by name."""

    def diagnose(self, records: list[dict]) -> Diagnosis:
        """The state of a run from its records, oldest first."""


class MetricsLog:
    """Collects the figures of steps into records, one every `log_every` steps.

    Args:
        workdir: where records go.
        step: the step that the run starts or continues at; later records are dropped.
        interval: [loss, figure] of each step since the last record, from a checkpoint.
        pending: epochs done, where the evaluation after them is still to come; else None.
        judged: whether the final evaluation has been made.
        known: length and digest of the records at the checkpoint, where there is one.
        parts, figures, batch_size: of the run.
    """

    def __init__(
        self,
        workdir: Workdir,
        step: int,
        interval: np.ndarray | list,
        pending: int | None,
        judged: bool,
        known: dict[str, Any] | None,
        parts: RunComponents,
        figures: RunMetrics,
        batch_size: int,
    ) -> None:
        self.workdir, self.components, self.metrics, self.batch_size = workdir, parts, figures, batch_size
        self.interval: list[list[float]] = [[float(a), float(b)] for a, b in interval]
        start = step if step > parts.first_step else -1  # the first step is recorded at every start from it
        kept = workdir.records.rewind(start, pending is not None, judged, known)
        needed = ("loss", "loss_spread", *figures.record_values(np.ones(1), None))
        self.records = [r for r in kept if all(_is_number(r.get(name)) for name in needed)]
        self.scored: dict[str, float] = next((r for r in reversed(kept) if "loss" not in r), {})
        self.diagnosis = figures.diagnose(self.records)
        self._seconds = self._waited = self._timed = 0.0
        shown = workdir.writes
        self._board = TensorBoard(workdir.path / "tb" if shown else None)
        self._troubled = False
        self._bar = progress.bar(
            None, total=parts.total_steps, initial=step, unit="step", dynamic_ncols=True, delay=0,
            maxinterval=20.0, disable=not shown,
        )  # fmt: skip

    def steps(self, losses: np.ndarray, figures: np.ndarray, waits: np.ndarray, seconds: float) -> None:
        """Takes in the steps of one call of the loop."""
        self.interval += [[float(a), float(b)] for a, b in zip(losses, figures, strict=True)]
        self._seconds += seconds
        self._waited += float(np.sum(waits))
        self._timed += len(losses)
        shown = {"loss": f"{losses[-1]:.3f}", self.metrics.metric_label: f"{figures[-1]:.2f}"}
        if self.metrics.evaluation_name in self.scored:
            shown[self.metrics.evaluation_label] = f"{100 * self.scored[self.metrics.evaluation_name]:.1f}%"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(len(losses))

    def latest(self) -> dict[str, float]:
        """Loss and figure of the last step, as Keras' logs."""
        names = ("loss", self.metrics.metric_name)
        last = self.records[-1] if self.records else {}
        values = self.interval[-1] if self.interval else [last.get(name, 0.0) for name in names]
        return dict(zip(names, values, strict=True))

    def record(self, step: int, z: np.ndarray | None) -> Diagnosis:
        """Writes the record that ends at `step`.

        z: embeddings of its last batch [B, d]; None when a loss was no number.
        """
        losses, figures = np.array(self.interval).T
        values = {
            "loss": float(losses.mean()), "loss_spread": float(losses.std()),
            **self.metrics.record_values(figures, z),
            **self.metrics.learning_rates(self.components.model.optimizer, step - 1),
        }  # fmt: skip
        perf = {
            "images_per_second": self._timed * self.batch_size / max(self._seconds, 1e-9),
            "data_wait": self._waited / max(self._seconds, 1e-9),
        }
        self.interval = []
        self._seconds = self._waited = self._timed = 0.0
        self._write(step, values)
        self.records.append(self.workdir.records.rows[-1])
        self._board.scalars(step, {f"perf/{k}": v for k, v in perf.items()})
        found = self.metrics.diagnose(self.records)
        if found.name != self.diagnosis.name:
            self.say(f"step {step}: {found}")
        self.diagnosis = found
        if self.workdir.writes:
            log.info("step %d %s %s", step, _text(values), _text(perf))
        return found

    def diverged(self, reason: str) -> None:
        """Calls the run diverged, whatever its records say."""
        self.diagnosis = dataclasses.replace(self.diagnosis, name="divergence", reason=reason)
        self.say(str(self.diagnosis))

    def evaluation(self, step: int, epoch: int | None, values: dict[str, float]) -> None:
        """Writes an accuracy: of an epoch's end, or the final one when epoch is None."""
        self.scored = values
        kind = {"images": "all"} if epoch is None else {"epoch": epoch}
        self._write(step, {**kind, **values})
        self.say(f"step {step}, {'end' if epoch is None else f'epoch {epoch}'}: {_text(values)}")

    def picture(self, grid: np.ndarray) -> None:
        """Shows the grid of augmented pairs in TensorBoard."""
        self._board.image(grid)

    def _write(self, step: int, values: dict) -> None:
        """One record, in metrics.jsonl and TensorBoard."""
        trouble = self.workdir.records.add(step, values)
        if trouble and not self._troubled:
            self.say(trouble)
        self._troubled = bool(trouble)
        if self._board.vanished():
            self.say(f"{self._board.folder} was removed; it is made anew from metrics.jsonl")
            self._board.begin()
            for record in self.workdir.records.rows[:-1]:
                self._board.record(record)
        self._board.record({"step": step, **values})

    def say(self, text: str) -> None:
        """A line above the progress bar, and in train.log."""
        if self.workdir.writes:
            log.warning(text)  # which the terminal shows

    def close(self) -> None:
        """Ends the progress bar and the TensorBoard file."""
        self._bar.close()
        self._board.close()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _text(values: dict[str, float]) -> str:
    return "  ".join(f"{k} {v:.4g}" for k, v in values.items())
