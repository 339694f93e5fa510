"""Schedules: learning rates as pure functions of the step (Sec. 3, "Baseline settings")."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from simsiam_tf.runtime.display_text import counted

Schedule = keras.optimizers.schedules.LearningRateSchedule


@keras.saving.register_keras_serializable("simsiam_tf")
class Cosine(Schedule):
    """From `base` to `final` over `steps` on half a cosine, after a linear warm-up from 0.

    lr(s) = base · s / w for s < w, then final + (base − final) · ½(1 + cos(π (s − w) / (steps − w))).

    Args:
        base: the learning rate after the warm-up.
        steps: length of the schedule, warm-up included.
        warmup_steps: w.
        final: learning rate at the end; 0 in the paper, base / 1000 in SwAV (arXiv 2006.09882). It is 1
            where BYOL uses this schedule for its momentum, which rises (arXiv 2006.07733, Sec. 3.3).
        hold: steps between changes of the rate after the warm-up: the second formula takes s rounded down
            to a multiple of `hold`. The official code changes the rate once an epoch; the paper does not say.
    """

    def __init__(
        self, base: float, steps: int, warmup_steps: int = 0, final: float = 0.0, hold: int = 1
    ) -> None:
        if not 0 <= warmup_steps < steps:
            raise ValueError(
                f"A schedule of {counted(steps, 'step')} has no room for {warmup_steps} warm-up steps. "
                "Shorten the warm-up or train longer."
            )
        self.base, self.steps, self.warmup_steps = base, steps, warmup_steps
        self.final, self.hold = final, hold

    def __call__(self, step) -> tf.Tensor:
        step = tf.cast(step, tf.int64)
        rounded, step = tf.cast(step - step % self.hold, tf.float32), tf.cast(step, tf.float32)
        warmup, steps = float(self.warmup_steps), float(self.steps)
        progress = tf.clip_by_value((rounded - warmup) / (steps - warmup), 0.0, 1.0)
        decayed = self.final + 0.5 * (self.base - self.final) * (1.0 + tf.cos(math.pi * progress))
        return tf.where(step < warmup, self.base * step / max(warmup, 1.0), decayed)

    def get_config(self) -> dict:
        return dict(vars(self))


@keras.saving.register_keras_serializable("simsiam_tf")
class Steps(Schedule):
    """Falls to a tenth at each milestone, after a linear warm-up from 0: as detectors are trained.

    Args:
        base: the learning rate after the warm-up.
        milestones: the steps at which it falls, ascending.
        warmup_steps: as for `Cosine`.
    """

    def __init__(self, base: float, milestones: Sequence[int], warmup_steps: int = 0) -> None:
        self.base, self.milestones, self.warmup_steps = base, list(milestones), warmup_steps

    def __call__(self, step) -> tf.Tensor:
        step = tf.cast(step, tf.int64)
        passed = tf.math.count_nonzero(step >= tf.constant(self.milestones, tf.int64), dtype=tf.float32)
        rising = tf.minimum(tf.cast(step, tf.float32) / max(self.warmup_steps, 1), 1.0)
        return self.base * tf.pow(0.1, passed) * (rising if self.warmup_steps else 1.0)

    def get_config(self) -> dict:
        return dict(vars(self))


@keras.saving.register_keras_serializable("simsiam_tf")
class Constant(Schedule):
    """The same learning rate at every step: Table 1 (c) for the predictor."""

    def __init__(self, base: float) -> None:
        self.base = base

    def __call__(self, step) -> tf.Tensor:
        del step
        return tf.constant(self.base, tf.float32)

    def get_config(self) -> dict:
        return dict(vars(self))


@keras.saving.register_keras_serializable("simsiam_tf")
class After(Schedule):
    """0 in the first `steps` steps, then the rate of another schedule at the same step: SwAV's prototypes.

    In the first `steps` steps the optimizers of this package do not change a variable with this schedule:
    neither gradients nor weight decay enter its momentum.
    """

    def __init__(self, steps: int, schedule: Schedule) -> None:
        self.steps, self.schedule = steps, schedule

    def __call__(self, step) -> tf.Tensor:
        return tf.where(tf.cast(step, tf.int64) < self.steps, 0.0, self.schedule(step))

    def get_config(self) -> dict:
        return {"steps": self.steps, "schedule": keras.saving.serialize_keras_object(self.schedule)}

    @classmethod
    def from_config(cls, config: dict) -> After:
        return cls(config["steps"], keras.saving.deserialize_keras_object(config["schedule"]))


cosine, steps, constant, after = Cosine, Steps, Constant, After


def scaled(base_lr: float, batch_size: int) -> float:
    """Linear scaling, lr = base_lr × batch / 256 (Sec. 3)."""
    return base_lr * batch_size / 256
