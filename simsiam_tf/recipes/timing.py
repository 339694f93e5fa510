"""Times the steps and the evaluations of a run that is thrown away afterwards."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf.data import Source, Views, pipeline
from simsiam_tf.evaluate import finishing
from simsiam_tf.evaluate.knn_monitor import Encoder, Monitor
from simsiam_tf.evaluate.label_free import IMAGES, LabelFreeMonitor
from simsiam_tf.features import extraction, knn
from simsiam_tf.loop import compiled_steps
from simsiam_tf.loop.task import Accuracies, RunComponents
from simsiam_tf.nets.whitening import read_quarters

FINAL_SHARE = 0.1  # of the budget, that the final evaluation takes at most,
FINAL_IMAGES = 2000  # but on so many images, if there are
READ_IMAGES = 512  # images that are read as the exported backbone reads them, to time that
LEAST_CALLS = 3  # calls of the compiled loop that are timed at least
CALL_SECONDS = 0.25  # about how long a timed call takes, where steps are shorter
SHARE, MOST_SECONDS = 0.03, 60.0  # of the budget, but no longer, steps are timed
# Time of a step that goes into records (1.2 %) and checkpoints (0.5 %), by docs/performance.md.
OVERHEAD = 0.02


def time_steps(components: RunComponents, config: Any, budget: float) -> tuple[float, float]:
    """(seconds until the first step has run, seconds of a later step); the model is trained by these steps.

    All workers must call it. The second number is the mean, as that of a run is: on a machine that has other
    work now and then, the median would leave that out.

    budget: seconds of the whole run.
    """
    began, limit = time.perf_counter(), min(SHARE * budget, MOST_SECONDS)
    iterator = compiled_steps.batches(components, config, components.first_step)
    run_steps = compiled_steps.compiled_steps(components, config)

    def seconds_of(count: int) -> float:
        """Seconds of one call, the largest of all workers."""
        began = time.perf_counter()
        run_steps(iterator, tf.constant(count))[0].numpy()
        return components.workers.all_reduce_max(time.perf_counter() - began)[0]

    seconds_of(1)
    traced = time.perf_counter() - began
    warm = 0.0
    for _ in range(pipeline.PREFETCHED_STEPS + 2):  # whose batches were made while the steps were traced
        warm += seconds_of(1) if warm < limit else 0
    calls, steps, spent, count = 0, 0, 0.0, 1
    while calls < LEAST_CALLS or spent < limit:
        seconds = seconds_of(count)
        calls, steps, spent = calls + 1, steps + count, spent + seconds
        count = max(1, min(2 * count, int(CALL_SECONDS * count / seconds), config.log_every))
    return traced, (1 + OVERHEAD) * spent / steps


@dataclasses.dataclass(frozen=True)
class TimedMonitor(Monitor):
    """A monitor that times its evaluations.

    rates: of each evaluation the seconds of an image, whose features are extracted, and of a pair of bank and
        queries, which are compared. Of several workers each times its share as if it were alone.
    """

    rates: list[tuple[float, float]] = dataclasses.field(default_factory=list)

    def accuracy(
        self, encode: Encoder, images: int | None = None, shrinkage: float | None = None
    ) -> dict[str, float]:
        calls: list[tuple[int, float]] = []

        def timed(source: Source, ids: np.ndarray) -> np.ndarray:
            began = time.perf_counter()
            features = encode(source, ids)
            calls.append((len(ids), time.perf_counter() - began))
            return features

        began = time.perf_counter()
        accuracy = super().accuracy(timed, images, shrinkage)
        comparing = time.perf_counter() - began - sum(seconds for _, seconds in calls)
        bank, queries = map(len, self.sample(images))
        extraction = min(seconds / max(count, 1) for count, seconds in calls)  # the first call may trace
        self.rates.append((extraction, comparing * self._workers / (bank * queries)))
        return accuracy

    def seconds(self, rate: tuple[float, float], images: int | None = None) -> float:
        """Seconds of an evaluation of so many images, or of all if None, by the rates of an earlier one."""
        bank, queries = map(len, self.sample(images))
        return (rate[0] * (bank + queries) + rate[1] * bank * queries) / self._workers

    @property
    def _workers(self) -> int:
        return 1 if self.workers is None else self.workers.count


@dataclasses.dataclass(frozen=True)
class EvaluationTimes:
    """Seconds of what is computed of features.

    evaluation: an evaluation during the training. whitening: that of the export. final: number of images, or
    None for all → an evaluation at the end, of the baselines and of the trained backbone.
    """

    evaluation: float
    whitening: float
    final: Callable[[int | None], float]


def time_baselines(
    monitor: Monitor | LabelFreeMonitor, untrained: keras.Model, images: int, read_size: int | None = None
) -> tuple[Accuracies, EvaluationTimes]:
    """Evaluates the baselines: (accuracies, times of later evaluations).

    images: their number; during the training, too. read_size: pixels at which the exported backbone reads
    images; None where features are not whitened.
    """
    source = monitor.bank if isinstance(monitor, Monitor) else monitor.source
    read = seconds_to_read(untrained, source, monitor.views, read_size) if read_size else 0.0
    whitening = read * min(finishing.IMAGES, source.size)
    if isinstance(monitor, LabelFreeMonitor):
        began = time.perf_counter()
        accuracies = monitor.baselines(untrained, images)
        seconds = (time.perf_counter() - began) / len(accuracies)
        image = seconds / (monitor.size(images) * monitor.views_per_image)
        rate = (len(accuracies) + 1) * monitor.views_per_image * (image + read)
        return accuracies, EvaluationTimes(seconds, whitening, lambda count: rate * monitor.size(count))
    timed = TimedMonitor(**vars(monitor))
    knn.nearest(np.eye(2), np.eye(2), 1)  # traces the search
    accuracies = timed.baselines(untrained, images)
    pixels, backbone = timed.rates
    rates = [*timed.rates, backbone]
    if read_size:
        rates += [pixels, (read, backbone[1]), (read, backbone[1])]

    def final(count: int | None) -> float:
        judged = LabelFreeMonitor.views_per_image * min(IMAGES, monitor.bank.size, count or IMAGES)
        return sum(timed.seconds(rate, count) for rate in rates) + 3 * judged * backbone[0]

    return accuracies, EvaluationTimes(timed.seconds(backbone, images), whitening, final)


def seconds_to_read(
    backbone: keras.Model, source: Source, views: Views, size: int, images: int = READ_IMAGES
) -> float:
    """Seconds that an image adds when a backbone reads its quarters at `size` pixels, from so many images."""
    network, views = read_quarters(backbone, size), finishing.reading_views(views, size)
    many = min(source.size, images)

    def read(count: int) -> None:
        extraction.extract(network, source, views, np.arange(count))

    return seconds_per_image(when_traced(read), many // 8, many)


def seconds_of(call: Callable[[int], None], images: int) -> float:
    """Seconds of a call on so many images."""
    began = time.perf_counter()
    call(images)
    return time.perf_counter() - began


def when_traced(call: Callable[[int], None]) -> Callable[[int], float]:
    """The seconds of a call on so many images, without those of what a first call traces."""

    def seconds(images: int) -> float:
        call(images)
        return seconds_of(call, images)

    return seconds


def seconds_per_image(seconds: Callable[[int], float], few: int, many: int) -> float:
    """What an image adds to the seconds of a call, from calls on a few and on many images.

    A call takes most of a second for its pipeline alone, so that its share of an image would be far too high.
    """
    if few in (0, many):
        return seconds(many) / many
    return max(0.0, seconds(many) - seconds(few)) / (many - few)


def final_images(size: int, final: Callable[[int | None], float], budget: float) -> int | None:
    """Images of a final evaluation that takes at most FINAL_SHARE of the budget; None: all.

    size: number of all.
    """
    count = size
    while final(count) > FINAL_SHARE * budget and count > FINAL_IMAGES:
        count = max(FINAL_IMAGES, count * 2 // 3)
    return None if count == size else count
