"""The loop of every run: record, evaluate, commit. One process or many take the same path."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf.data import preview, sampling
from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate.diagnosis import Diagnosis
from simsiam_tf.loop import compiled_steps
from simsiam_tf.loop.checkpoint_policy import CheckpointPolicy
from simsiam_tf.loop.checkpoints import Checkpoints
from simsiam_tf.loop.metrics_log import MetricsLog
from simsiam_tf.loop.task import Task
from simsiam_tf.loop.workdir import Workdir, run_description
from simsiam_tf.methods import metrics
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.runtime.signals import INTERRUPTED, DeferredSignals
from simsiam_tf.runtime.versions import library_versions

log = logging.getLogger("simsiam_tf")

DONE, COLLAPSED, DIVERGED = 0, 3, 4
CALL_SECONDS = 1.0  # the graph runs about so long before Python looks at signals and progress


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended. status: DONE, COLLAPSED, DIVERGED or INTERRUPTED."""

    status: int
    step: int
    diagnosis: Diagnosis
    accuracy: dict[str, dict[str, float]]  # of what was trained, and of what it has to beat
    workdir: Path
    records: list[dict]
    workers: Workers | None = None  # of the run; None for this process alone

    @property
    def chief(self) -> bool:
        """Whether this process writes."""
        return self.workers is None or self.workers.chief

    def leave(self) -> int:
        """The exit status, for a command that has nothing left to do; several workers end here, together."""
        if self.workers is not None:
            self.workers.leave(self.status)
        return self.status


class Loop:
    """The state of a running loop: step, records, and what a commit holds.

    Args:
        task: what is trained, judged and exported.
        workdir: claimed, and agreed with the task's configuration.
        callbacks: Keras callbacks besides the task's own.
    """

    def __init__(self, task: Task, workdir: Workdir, callbacks: Sequence = ()) -> None:
        config, parts = task.config, task.components
        self.task, self.config, self.components, self.workdir = task, config, parts, workdir
        self.model, self.size = parts.model, parts.source.size
        state = {"model": parts.model, "optimizer": parts.model.optimizer}
        self.workers = parts.workers
        self.set_up = {"replicas": parts.strategy.num_replicas_in_sync, **library_versions()}
        about = {"configuration": run_description(config, parts.metadata), "made with": self.set_up}
        folder = workdir.path / "checkpoints"
        commits = Checkpoints(folder, state, config.keep, workdir.writes, about)
        with self.workers.chief_first():  # it sweeps what a crash has left
            manifest = commits.restore()
        self.step = manifest["step"] if manifest else parts.first_step
        self.workers.agree(
            {"the newest checkpoint": self.step}, "`workdir` must be a folder that they share."
        )
        extra = manifest["extra"] if manifest else {}
        self.accuracy = extra.get("accuracy", {})
        card = task.exported_card(workdir.path)
        exported = self.step > 0 and card.get("step") == self.step
        judged = exported and bool(card.get("accuracy"))
        self.exported, self.judged = map(bool, self.workers.all_reduce_max(exported, judged))
        self.accuracy = card.get("accuracy") or self.accuracy if self.judged else self.accuracy
        self.pending = None if self.exported else extra.get("pending")
        before = workdir.path / "metrics.jsonl"
        anew = manifest is None and before.exists() and before.stat().st_size > 0
        self.metrics_log = MetricsLog(
            workdir,
            self.step,
            manifest.get("interval", ()) if manifest else (),
            self.pending,
            self.judged,
            extra.get("records"),
            parts,
            task.metrics,
            config.batch_size,
        )
        if anew:
            self.metrics_log.say(
                f"no checkpoint was made or is left: starting at step {self.step}, its records are dropped"
            )
        self.signals = DeferredSignals(self.metrics_log.say)
        self.policy = CheckpointPolicy(workdir, commits, config.save_minutes, self.step, self.metrics_log.say)
        self.before = manifest["made with"] if manifest else self.set_up
        self.evaluator = task.evaluator
        own = [] if self.evaluator is None else [self.evaluator]
        self.callbacks = keras.callbacks.CallbackList(
            [*own, *callbacks], model=self.model,
            epochs=math.ceil(config.epochs), steps=parts.total_steps, verbose=0,
        )  # fmt: skip
        self.per_call, self.pace = 1, 0.0  # steps of the next call, seconds of a step

    def run(self) -> Outcome:
        if self.step > self.components.first_step:
            self._say_how_it_continues()
        try:
            if self.step == self.components.first_step:
                self._baselines()
            self._trace()
            with self.signals.defer_signals():
                status = self._train()
            return self._finish(status)
        except (tf.errors.OpError, MemoryError) as error:
            if isinstance(error, tf.errors.OpError) and self.workers.lost_worker(error):
                raise
            reason = " ".join(str(getattr(error, "message", error)).split())[:200] or "out of memory."
            scarce = isinstance(error, MemoryError | tf.errors.ResourceExhaustedError)
            mend = f"Try a smaller `batch_size` than {self.config.batch_size}." if scarce else ""
            raise UserError(
                f"{self.workdir.path}: step {self.step} failed: {reason} Checkpoints are kept. {mend}"
            ) from error
        finally:
            self.metrics_log.close()

    def _say_how_it_continues(self) -> None:
        log.info("continuing at step %d of %d", self.step, self.components.total_steps)
        changed = {k: v for k, v in self.before.items() if self.set_up.get(k) != v}
        if changed:
            was = ", ".join(f"{v} {k}, now {self.set_up.get(k)}" for k, v in changed.items())
            self.metrics_log.say(
                f"the checkpoint was made with {was}: the same images and views follow, "
                "the weights will agree to rounding, not to the bit"
            )

    def _baselines(self) -> None:
        """What the run has to beat, before its first step."""
        self.metrics_log.picture(
            preview.grid(self.components.source, self.components.views, self.config.seed)
        )
        if not self.accuracy:
            self.accuracy = self.task.baselines(self.metrics_log.say)
            if self.accuracy:
                self.commit(None)
        if self.task.untrained_name in self.accuracy:
            self.metrics_log.evaluation(0, 0, self.accuracy[self.task.untrained_name])

    def _trace(self) -> None:
        """Compiles the loop over steps, while signals may still end the run at once."""
        if self.step < self.components.total_steps:
            self.iterator = compiled_steps.batches(self.components, self.config, self.step)
            self.run_steps = compiled_steps.compiled_steps(self.components, self.config)
            self.run_steps.trace(self.iterator)

    def _train(self) -> int:
        """Calls the compiled loop from mark to mark: a record, an epoch's end, a commit."""
        config, total = self.config, self.components.total_steps
        epoch = self.step * config.batch_size // self.size
        status = DONE
        self.model.stop_training = False
        self.callbacks.on_train_begin()
        if self.pending is not None:
            self._end_epoch(self.pending)
            epoch = self.pending
        self.callbacks.on_epoch_begin(epoch)
        while self.step < total and not self.model.stop_training and status == DONE:
            end = min(total, sampling.epoch_end(epoch + 1, self.size, config.batch_size))
            z = self._advance(min(end, self._next_log(), self.step + self.per_call))
            if self.step % config.log_every == 0 or self.step == total or z is None:
                found = self.metrics_log.record(self.step, z)
                if found.name == "divergence":
                    status = DIVERGED
                    break
                if found.name in self.task.ending_diagnoses:
                    status = COLLAPSED
            status = self._agreed(status)
            pending = None
            if self.step == end:
                pending = epoch = epoch + 1
            must = status != DONE or self.step == total
            evaluates = pending is not None and self.evaluator is not None and self.evaluator.due(pending)
            if must or self.policy.due(pending is not None, evaluates):
                sound = self.commit(pending, must)
                if not sound and self.step == total:
                    self.metrics_log.diverged(f"weights after step {self.step} are no numbers")
                    status = DIVERGED
            if pending and status not in (INTERRUPTED, DIVERGED):
                self._end_epoch(epoch)
                if self.step < total:
                    self.callbacks.on_epoch_begin(epoch)
                status = self._agreed(status)
        if status != DIVERGED and self.policy.step != self.step:  # a callback stopped it
            self.commit(None, must=True)
        self.callbacks.on_train_end()
        return self._agreed(status) if status == DONE else status

    def _advance(self, end: int) -> np.ndarray | None:
        """Runs up to step `end`; the embeddings of the last step, None if a loss is no number."""
        count = end - self.step
        self.callbacks.on_train_batch_begin(self.step)
        began = time.perf_counter()
        losses, figures, waits, z = (t.numpy() for t in self.run_steps(self.iterator, count))
        seconds = time.perf_counter() - began
        self.pace = seconds / count
        self.step = end
        self.exported = self.judged = False
        self.metrics_log.steps(losses, figures, waits, seconds)
        self.callbacks.on_train_batch_end(self.step - 1, self.metrics_log.latest())
        return z if np.isfinite(losses).all() else None

    def _agreed(self, status: int) -> int:
        """The status that all workers go on with, and how many steps their next call takes."""
        if self.signals.seen is not None:
            status = INTERRUPTED
        status, stop, pace = self.workers.all_reduce_max(status, self.model.stop_training, self.pace)
        self.model.stop_training = bool(stop)
        wanted = max(1, int(CALL_SECONDS / max(pace, 1e-6)))
        self.per_call = min(2 * self.per_call, wanted, self.config.log_every)
        return int(status)

    def _next_log(self) -> int:
        return (self.step // self.config.log_every + 1) * self.config.log_every

    def _end_epoch(self, epoch: int) -> None:
        """Calls the callbacks, the monitor's among them, after so many epochs."""
        safe = self.workers.count == 1 and self.policy.step == self.step
        with self.signals.act_at_once() if safe else contextlib.nullcontext():
            self.callbacks.on_epoch_end(epoch - 1, self.metrics_log.latest())
        if self.evaluator is not None and self.evaluator.latest:  # Keras hands callbacks a copy of the logs
            self.metrics_log.evaluation(self.step, epoch, self.evaluator.latest)

    def commit(self, pending: int | None, must: bool = False) -> bool:
        """Saves the run as of now; False where the weights are no numbers, which are not saved.

        pending: epochs done, where the evaluation after them is still to come.
        must: raise where it cannot be written; otherwise the run goes on and tries again.
        """
        if not metrics.all_finite([*self.model.variables, *self.model.optimizer.variables]):
            return False  # the loss of the next step tells
        records = self.workdir.records.digest()
        extra = {"records": records, "accuracy": self.accuracy, "pending": pending}
        self.policy.commit(self.step, extra, must, np.reshape(self.metrics_log.interval, (-1, 2)))
        return True

    def _finish(self, status: int) -> Outcome:
        """Exports, then judges what was exported: each once, however often the run is ended in between."""
        here, found = self.workdir.path, self.metrics_log.diagnosis
        if status == DONE:
            if self.workdir.writes and not self.exported:
                facts = {
                    "step": self.step, "accuracy": {}, "diagnosis": str(found),
                    "data": self.components.source.name, "images": self.size, "made with": self.set_up,
                    "views": self.components.metadata["views"],
                    "configuration": dataclasses.asdict(self.config),
                }  # fmt: skip
                with self._written("the export"):
                    self.task.export(here, facts)
            trained = {} if self.judged else self.task.final_accuracy(self.metrics_log.say)
            if trained:
                self.metrics_log.evaluation(self.step, None, trained)
                before = self.task.final_baselines(self.accuracy)
                self.accuracy = {**before, self.task.trained_name: trained}
                if self.workdir.writes:
                    with self._written("the final accuracy"):
                        self.task.add_accuracy(here, self.accuracy)
        self.workers.all_reduce_max(0)  # none leaves while another still works
        return Outcome(status, self.step, found, self.accuracy, here, self.metrics_log.records, self.workers)

    @contextlib.contextmanager
    def _written(self, what: str) -> Iterator[None]:
        """Raises UserError where something cannot be written; all that was trained is committed."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or " ".join(str(error).split())[:200]
            raise UserError(
                f"workdir={self.workdir.path}: {what} could not be written ({reason}). Checkpoints are "
                "kept: make room and rerun."
            ) from error
