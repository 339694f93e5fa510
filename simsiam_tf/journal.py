"""What a run says: progress, metrics.jsonl, TensorBoard and the log, of the same figures."""

from __future__ import annotations

import logging
import sys

import numpy as np
from tqdm import tqdm

from simsiam_tf import metrics
from simsiam_tf.assembly import Assembly
from simsiam_tf.board import TensorBoard
from simsiam_tf.config import PretrainConfig
from simsiam_tf.diagnosis import Diagnosis, diagnose
from simsiam_tf.workdir import Workdir

log = logging.getLogger("simsiam_tf")


class Journal:
    """Collects the figures of steps into records, one every `log_every` steps.

    Args:
        workdir: where records go.
        step: the step that the run starts or continues at; later records are dropped.
        interval: [loss, std] of each step since the last record, from a checkpoint.
        pending: epochs done, where the evaluation after them is still to come; else None.
        parts, config: of the run.
    """

    def __init__(
        self,
        workdir: Workdir,
        step: int,
        interval: list,
        pending: int | None,
        parts: Assembly,
        config: PretrainConfig,
    ) -> None:
        self.workdir, self.parts, self.config = workdir, parts, config
        self.interval: list[list[float]] = list(interval)
        kept = workdir.rewind(step or -1, pending is not None)  # step 0 is recorded at every start from it
        self.records = [r for r in kept if "loss" in r]
        self.knn: dict[str, float] = next((r for r in reversed(kept) if "knn20" in r), {})
        self.diagnosis = self._diagnose()
        self._seconds = self._waited = self._timed = 0.0
        shown = workdir.writes
        self._board = TensorBoard(workdir.path / "tb" if shown else None)
        self._troubled = False
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=parts.total_steps, initial=step, unit="step", dynamic_ncols=terminal,
            ncols=None if terminal else 110, mininterval=0.5 if terminal else 10.0, maxinterval=20.0,
            disable=not shown,
        )  # fmt: skip

    def steps(self, losses: np.ndarray, stds: np.ndarray, waits: np.ndarray, seconds: float) -> None:
        """Takes in the steps of one call of the loop."""
        self.interval += [[float(a), float(b)] for a, b in zip(losses, stds, strict=True)]
        self._seconds += seconds
        self._waited += float(np.sum(waits))
        self._timed += len(losses)
        shown = {"loss": f"{losses[-1]:.3f}", "std·√d": f"{stds[-1]:.2f}"}
        if "knn20" in self.knn:
            shown["kNN"] = f"{100 * self.knn['knn20']:.1f}%"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(len(losses))

    def latest(self) -> dict[str, float]:
        """Loss and std of the last step, as Keras' logs."""
        loss, std = self.interval[-1] if self.interval else self._last()
        return {"loss": loss, "std": std}

    def _last(self) -> list[float]:
        return [self.records[-1][k] for k in ("loss", "std")] if self.records else [0.0, 0.0]

    def record(self, step: int, z: np.ndarray | None) -> Diagnosis:
        """Writes the record that ends at `step`.

        z: embeddings of its last batch [B, d]; None when a loss was no number.
        """
        losses, stds = np.array(self.interval).T
        lr = {k: float(v) for k, v in self._rates(step - 1).items()}
        values = {
            "loss": float(losses.mean()), "loss_spread": float(losses.std()),
            "std": float(stds.mean()), "rank": 1.0 if z is None else metrics.effective_rank(z), **lr,
        }  # fmt: skip
        perf = {
            "images_per_second": self._timed * self.config.batch_size / max(self._seconds, 1e-9),
            "data_wait": self._waited / max(self._seconds, 1e-9),
        }
        self.interval = []
        self._seconds = self._waited = self._timed = 0.0
        self.records.append({"step": step, **values})
        self._write(step, values)
        self._board.scalars(step, {f"perf/{k}": v for k, v in perf.items()})
        found = self._diagnose()
        if found.name != self.diagnosis.name:
            self.say(f"step {step}: {found}")
        self.diagnosis = found
        if self.workdir.writes:
            log.info("step %d %s %s", step, _text(values), _text(perf))
        return found

    def _rates(self, step: int) -> dict:
        optimizer = self.parts.model.optimizer
        lr = optimizer._learning_rate(step)
        h = optimizer.overrides.get("predictor")
        return {"lr": lr, "lr_predictor": lr if h is None else h(step)}

    def _diagnose(self) -> Diagnosis:
        return diagnose(self.records, self.parts.total_steps, self.config.similarity)

    def diverged(self, reason: str) -> None:
        """Calls the run diverged, whatever its records say."""
        self.diagnosis = Diagnosis("divergence", reason)
        self.say(str(self.diagnosis))

    def evaluation(self, step: int, epoch: int | None, values: dict[str, float]) -> None:
        """Writes a kNN accuracy: of an epoch's end, or the final one when epoch is None."""
        self.knn = values
        kind = {"images": "all"} if epoch is None else {"epoch": epoch}
        self._write(step, {**kind, **values})
        self.say(f"step {step}, {'end' if epoch is None else f'epoch {epoch}'}: {_text(values)}")

    def picture(self, grid: np.ndarray) -> None:
        """Shows the grid of augmented pairs in TensorBoard."""
        self._board.image(grid)

    def _write(self, step: int, values: dict) -> None:
        """One record, in metrics.jsonl and TensorBoard."""
        trouble = self.workdir.record(step, values)
        if trouble and not self._troubled:
            self.say(trouble)
        self._troubled = bool(trouble)
        if self._board.vanished():
            self.say(f"{self._board.folder} was removed; it is made anew from metrics.jsonl")
            self._board.begin()
            for record in self.workdir.records[:-1]:
                self._board.record(record)
        self._board.record({"step": step, **values})

    def say(self, text: str) -> None:
        """A line above the progress bar, and in train.log."""
        if self.workdir.writes:
            log.info(text)
            self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Ends the progress bar and the TensorBoard file."""
        self._bar.close()
        self._board.close()


def _text(values: dict[str, float]) -> str:
    return "  ".join(f"{k} {v:.4g}" for k, v in values.items())
