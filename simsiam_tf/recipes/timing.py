"""Times the steps and the evaluations of a run that is thrown away afterwards."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf.data import Source, pipeline
from simsiam_tf.evaluate.knn_monitor import Encoder, Monitor
from simsiam_tf.features import knn
from simsiam_tf.loop import compiled_steps
from simsiam_tf.loop.task import Accuracies, RunComponents

LEAST_CALLS = 5  # calls of the compiled loop that are timed at least
CALL_SECONDS = 0.25  # about how long a timed call takes, where steps are shorter


def time_steps(components: RunComponents, config: Any, seconds: float) -> tuple[float, float]:
    """(seconds until the first step has run, seconds of a later step); the model is trained by these steps.

    All workers must call it. The second number is the median over the calls of the compiled loop.

    seconds: about how long to time steps.
    """
    began = time.perf_counter()
    iterator = compiled_steps.batches(components, config, components.first_step)
    run_steps = compiled_steps.compiled_steps(components, config)

    def seconds_of(count: int) -> float:
        """Seconds of one call, the largest of all workers."""
        began = time.perf_counter()
        run_steps(iterator, tf.constant(count))[0].numpy()
        return components.workers.all_reduce_max(time.perf_counter() - began)[0]

    seconds_of(1)
    traced = time.perf_counter() - began
    seconds_of(pipeline.PREFETCHED_STEPS + 2)  # these batches were made while the steps were traced
    steps: list[float] = []
    spent, count = 0.0, 1
    while len(steps) < LEAST_CALLS or spent < seconds:
        call = seconds_of(count)
        spent += call
        steps.append(call / count)
        count = max(1, min(2 * count, int(CALL_SECONDS / steps[-1]), config.log_every))
    return traced, statistics.median(steps)


@dataclasses.dataclass(frozen=True)
class TimedMonitor(Monitor):
    """A monitor that times its evaluations.

    rates: of each evaluation the seconds of an image, whose features are extracted, and of a pair of bank and
        queries, which are compared. Of several workers each times its share as if it were alone.
    """

    rates: list[tuple[float, float]] = dataclasses.field(default_factory=list)

    def accuracy(self, encode: Encoder, images: int | None = None) -> dict[str, float]:
        calls: list[tuple[int, float]] = []

        def timed(source: Source, ids: np.ndarray) -> np.ndarray:
            began = time.perf_counter()
            features = encode(source, ids)
            calls.append((len(ids), time.perf_counter() - began))
            return features

        began = time.perf_counter()
        accuracy = super().accuracy(timed, images)
        comparing = time.perf_counter() - began - sum(seconds for _, seconds in calls)
        bank, queries = map(len, self.sample(images))
        count, extraction = calls[-1]  # of the queries: for those of the bank the network was traced
        self.rates.append((extraction / max(count, 1), comparing * self._workers / (bank * queries)))
        return accuracy

    def seconds(self, rate: tuple[float, float], images: int | None = None) -> float:
        """Seconds of an evaluation of so many images, or of all if None, by the rates of an earlier one."""
        bank, queries = map(len, self.sample(images))
        return (rate[0] * (bank + queries) + rate[1] * bank * queries) / self._workers

    @property
    def _workers(self) -> int:
        return 1 if self.workers is None else self.workers.count


def time_baselines(monitor: Monitor, untrained: keras.Model, images: int) -> tuple[Accuracies, float, float]:
    """Evaluates the baselines: (accuracies, seconds of a later evaluation, seconds of the final one).

    A later evaluation takes the same number of images. The final one takes all images, for the baselines and
    for the trained backbone.
    """
    timed = TimedMonitor(**vars(monitor))
    knn.nearest(np.eye(2), np.eye(2), 1)  # traces the search
    accuracies = timed.baselines(untrained, images)
    backbone = timed.rates[-1]
    final = sum(timed.seconds(rate) for rate in (*timed.rates, backbone))
    return accuracies, timed.seconds(backbone, images), final
