"""The loop of every run: train, record, evaluate, save. One process or many take the same path."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf.data import sampling
from simsiam_tf.distributed.step_compilation import compilation_on
from simsiam_tf.loop import compiled_steps
from simsiam_tf.loop.checkpoint_policy import CheckpointPolicy
from simsiam_tf.loop.checkpoints import Checkpoints, untracked
from simsiam_tf.loop.failures import step_failures
from simsiam_tf.loop.metrics_file import MetricsFile
from simsiam_tf.loop.metrics_log import MetricsLog
from simsiam_tf.loop.outcome import COLLAPSED, DIVERGED, DONE, Outcome
from simsiam_tf.loop.recorders import recorder_names
from simsiam_tf.loop.task import Accuracies, Task
from simsiam_tf.loop.workdir import Workdir, run_description
from simsiam_tf.methods.metrics import all_finite
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.signals import INTERRUPTED, DeferredSignals
from simsiam_tf.runtime.versions import library_versions

log = logging.getLogger("simsiam_tf.run")

CALL_SECONDS = 1.0  # about how long the graph runs before Python looks at signals and progress


class Loop:
    """The state of a running loop; the constructor restores the newest checkpoint.

    Args:
        task: what is trained, evaluated and exported.
        workdir: work folder, bound to the task's configuration.
        callbacks: Keras callbacks besides the task's evaluator.
    """

    def __init__(self, task: Task, workdir: Workdir, callbacks: Sequence = ()) -> None:
        config, components = task.config, task.components
        self.task, self.config, self.components, self.workdir = task, config, components, workdir
        self.model, self.workers, self.evaluator = components.model, components.workers, task.evaluator
        self.environment = {"replicas": components.strategy.num_replicas_in_sync, **library_versions()}
        # [loss, metric] of each step since the last record; a variable, so that checkpoints hold it.
        self.interval = tf.Variable(tf.zeros([0, 2], tf.float64), shape=(None, 2))
        state = {"model": self.model, "optimizer": self.model.optimizer, "interval": self.interval}
        state |= untracked(state, self.model.variables)
        checkpoints = Checkpoints(
            workdir.path / "checkpoints",
            state,
            config.keep,
            workdir.writes,
            {"configuration": run_description(config, components.metadata), "made with": self.environment},
        )
        with self.workers.chief_first():  # others read after the chief removed what a crash left
            manifest: dict[str, Any] = checkpoints.restore() or {}
        self.step = manifest.get("step", components.first_step)
        self.workers.agree(
            {"the newest checkpoint": self.step}, "`workdir` must be a folder that they share."
        )
        self.former_environment = manifest.get("made with", self.environment)
        progress = manifest.get("progress", {})
        self._read_progress(progress)
        keeps_records = workdir.writes and "jsonl" in recorder_names(config.record)
        metrics_file = MetricsFile(workdir.path / "metrics.jsonl", keeps_records)
        # At the first step all records are dropped, that of the baselines too, which is written again. A run
        # without steps has no baselines.
        start = self.step if self.step > components.first_step or not components.total_steps else -1
        metrics_file.rewind(start, self.ended_epoch is not None, self.evaluated, progress.get("records"))
        self.metrics_log = MetricsLog(task, workdir, metrics_file, self.step, self.interval.numpy())
        self.signals = DeferredSignals(log.warning)
        self.policy = CheckpointPolicy(workdir, checkpoints, metrics_file, config.save_minutes, self.step)
        self.callbacks = keras.callbacks.CallbackList(
            [*([self.evaluator] if self.evaluator else []), *callbacks], model=self.model,
            epochs=math.ceil(config.epochs), steps=components.total_steps, verbose=0,
        )  # fmt: skip
        self.last_evaluation: tuple[int, dict[str, float]] = -1, {}  # step and accuracies
        self.steps_per_call, self.seconds_per_step = 1, 0.0

    def _read_progress(self, progress: dict[str, Any]) -> None:
        """Reads from the model card and the checkpoint what the run has done besides its steps.

        progress: that of the checkpoint, as `save` writes it; empty without a checkpoint.
        """
        card = backbone_file.read_card(self.workdir.path / self.task.exported_file)
        exported = self.step > 0 and card.get("step") == self.step
        if not self.components.total_steps:  # cheap to repeat, where any option has changed
            exported = card.get("configuration") == json.loads(json.dumps(dataclasses.asdict(self.config)))
        evaluated = exported and bool(card.get("accuracy"))
        self.exported, self.evaluated = map(bool, self.workers.all_reduce_max(exported, evaluated))
        self.accuracy = (self.evaluated and card.get("accuracy")) or progress.get("accuracy", {})
        self.ended_epoch = None if self.exported else progress.get("ended_epoch")

    def run(self) -> Outcome:
        """Trains; exports and evaluates, too, where the training came to its end."""
        try:
            with step_failures(self.task, self.workdir.path, lambda: self.step):
                if self.step == self.components.first_step:
                    self._evaluate_baselines()
                else:
                    self._say_how_it_continues()
                self._trace()
                with self.signals.defer_signals():
                    status = self._train()
                return self._finish(status)
        finally:
            self.metrics_log.close()

    def _say_how_it_continues(self) -> None:
        log.warning("continuing at step %d of %d", self.step, self.components.total_steps)
        changed = {k: v for k, v in self.former_environment.items() if self.environment.get(k) != v}
        if changed:
            log.warning(
                "the checkpoint was made with %s: the same images and views follow, the weights will agree "
                "up to rounding, not to the bit",
                ", ".join(f"{v} {k}, now {self.environment.get(k)}" for k, v in changed.items()),
            )

    def _evaluate_baselines(self) -> None:
        """Records a picture of views, and evaluates the baselines that the run has to beat."""
        self.metrics_log.add_picture("views", self.task.picture())
        if not self.accuracy:
            self.accuracy = self.task.baselines()
            if self.accuracy:
                self.save(None)
        if self.task.untrained_name in self.accuracy:
            epoch = self.step * self.config.batch_size // self.components.source.size
            self.metrics_log.add_evaluation(self.step, epoch, self.accuracy[self.task.untrained_name])

    def _trace(self) -> None:
        """Compiles the steps. Signals are not deferred yet: they end the run at once."""
        if self.step < self.components.total_steps:
            log.info("%s", compilation_on(self.components.strategy, self.config.jit_compile))
            self.iterator = compiled_steps.batches(self.components, self.config, self.step)
            self.run_steps = compiled_steps.compiled_steps(self.components, self.config)
            with (
                progress.announced("building the first step")
                if self.workdir.writes
                else contextlib.nullcontext()
            ):
                self.run_steps.get_concrete_function(self.iterator, tf.constant(1))

    def _train(self) -> int:
        """Trains by calls of `run_steps`, each of at most `steps_per_call` steps; returns the status."""
        config, images, total = self.config, self.components.source.size, self.components.total_steps
        epoch = self.step * config.batch_size // images
        has_collapsed = self.step >= total and self.metrics_log.diagnosis.name in self.task.ending_diagnoses
        status = (
            COLLAPSED if has_collapsed else DONE
        )  # a run that ended so is not another when it is repeated
        self.model.stop_training = False
        self.callbacks.on_train_begin()
        if self.ended_epoch is not None:
            self._end_epoch(self.ended_epoch)
            epoch = self.ended_epoch
        self.callbacks.on_epoch_begin(epoch)
        while self.step < total and not self.model.stop_training and status == DONE:
            end = min(total, sampling.epoch_end(epoch + 1, images, config.batch_size))
            next_record = (self.step // config.log_every + 1) * config.log_every
            z = self._advance(min(end, next_record, self.step + self.steps_per_call))
            if self.step % config.log_every == 0 or self.step == total or z is None:
                diagnosis = self.metrics_log.add_record(self.step, z)
                if diagnosis.name == "divergence":
                    status = DIVERGED
                    break
                if diagnosis.name in self.task.ending_diagnoses:
                    status = COLLAPSED
            status = self._agreed(status)
            ended_epoch = None
            if self.step == end:
                ended_epoch = epoch = epoch + 1
            is_last = status != DONE or self.step == total
            evaluates = bool(ended_epoch and self._evaluates(ended_epoch))
            if is_last or self.policy.due(ended_epoch is not None, evaluates):
                finite = self.save(ended_epoch, is_last)
                if not finite and self.step == total:
                    status = self._diverged()
            if ended_epoch and status not in (INTERRUPTED, DIVERGED):
                self._end_epoch(epoch)
                if self.step < total:
                    self.callbacks.on_epoch_begin(epoch)
                status = self._agreed(status)
        if status != DIVERGED and self.policy.step != self.step:  # a callback or a signal stopped the run
            finite = self.save(None, is_last=True)
            status = status if finite or status != DONE else self._diverged()
        self.callbacks.on_train_end()
        return self._agreed(status) if status == DONE else status

    def _diverged(self) -> int:
        self.metrics_log.set_diverged(f"weights after step {self.step} are not all finite")
        return DIVERGED

    def _advance(self, end: int) -> np.ndarray | None:
        """Runs to step `end`; returns the last step's embeddings [B, d], None if a loss is not finite."""
        count = end - self.step
        self.callbacks.on_train_batch_begin(self.step)
        began = time.perf_counter()
        rows, z = (t.numpy() for t in self.run_steps(self.iterator, tf.constant(count)))
        seconds = time.perf_counter() - began
        self.seconds_per_step = seconds / count
        self.step = end
        self.exported = self.evaluated = False
        self.metrics_log.add_steps(rows, seconds)
        self.callbacks.on_train_batch_end(self.step - 1, self.metrics_log.latest())
        return z if np.isfinite(rows[:, 0]).all() else None

    def _agreed(self, status: int) -> int:
        """Returns the largest status of all workers, and sets the number of steps of the next call.

        Where a callback of one worker has set `model.stop_training`, it is set on all.
        """
        if self.signals.seen is not None:
            status = INTERRUPTED
        mine = status, self.model.stop_training, self.seconds_per_step
        largest, stop, seconds = self.workers.all_reduce_max(*mine)
        self.model.stop_training = bool(stop)
        wanted = max(1, int(CALL_SECONDS / max(seconds, 1e-6)))
        self.steps_per_call = min(2 * self.steps_per_call, wanted, self.config.log_every)
        return int(largest)

    def _evaluates(self, epoch: int) -> bool:
        """Whether an evaluation follows epoch number `epoch`: not where the run ends within it."""
        if self.evaluator is None:
            return False
        images, batch = self.components.source.size, self.config.batch_size
        self.evaluator.is_whole_epoch = self.step >= sampling.steps_in(epoch, images, batch)
        return self.evaluator.due(epoch)

    def _end_epoch(self, epoch: int) -> None:
        """Calls the callbacks, the evaluator among them, at the end of epoch number `epoch`, from 1 on."""
        self._evaluates(epoch)
        saved = self.workers.count == 1 and self.policy.step == self.step
        with self.signals.act_at_once() if saved else contextlib.nullcontext():
            self.callbacks.on_epoch_end(epoch - 1, self.metrics_log.latest())
        if self.evaluator is not None and self.evaluator.latest:  # Keras hands callbacks a copy of the logs
            self.metrics_log.add_evaluation(self.step, epoch, self.evaluator.latest)
            self.last_evaluation = self.step, dict(self.evaluator.latest)

    def save(self, ended_epoch: int | None, is_last: bool = False) -> bool:
        """Saves a checkpoint; saves nothing and returns False if a weight or a momentum is not finite.

        ended_epoch: number of the epoch that has just ended, whose `_end_epoch` is still to come; else None.
        is_last: whether to raise UserError if the checkpoint cannot be written; else the run goes on.
        """
        if not all_finite([*self.model.variables, *self.model.optimizer.variables]):
            return False  # the loss of the next step will show it
        self.interval.assign(np.reshape(self.metrics_log.interval, (-1, 2)))
        records = self.metrics_log.metrics_file.digest()
        self.policy.save(
            self.step, {"records": records, "accuracy": self.accuracy, "ended_epoch": ended_epoch}, is_last
        )
        return True

    def _final_accuracies(self) -> Accuracies:
        """Those of the last epoch, where its evaluation was that of the end, else those of another."""
        step, accuracy = self.last_evaluation
        if self.task.evaluates_as_at_end and step == self.step:
            return {self.task.trained_name: accuracy}
        return self.task.final_accuracies()

    def _finish(self, status: int) -> Outcome:
        """After status DONE exports, then evaluates: each once, even if interrupted between them."""
        workdir, components, metrics_log = self.workdir.path, self.components, self.metrics_log
        if status == DONE and not self.exported and self.workdir.writes:
            metadata = {
                "step": self.step, "accuracy": {}, "diagnosis": str(metrics_log.diagnosis),
                "data": components.source.name, "images": components.source.size,
                "made with": self.environment, "views": components.metadata["views"],
                "configuration": dataclasses.asdict(self.config),
            }  # fmt: skip
            with self.workdir.named_trouble("the export"):
                self.task.export(workdir, metadata)
        accuracies = self._final_accuracies() if status == DONE and not self.evaluated else {}
        if accuracies:
            metrics_log.add_evaluation(self.step, None, accuracies[self.task.trained_name])
            self.accuracy = accuracies
            if self.workdir.writes:
                with self.workdir.named_trouble("the final accuracy"):
                    self.task.add_accuracy(workdir, accuracies, str(metrics_log.diagnosis))
        self.workers.all_reduce_max(0)  # no worker leaves while another still works
        return Outcome(
            status, self.step, metrics_log.diagnosis, self.accuracy, workdir, metrics_log.records,
            self.workers, self.task.config,
        )  # fmt: skip
