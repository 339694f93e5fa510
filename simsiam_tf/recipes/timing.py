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
from simsiam_tf.evaluate.knn_monitor import Monitor, SourceEncoder
from simsiam_tf.evaluate.label_free import IMAGES, LabelFreeMonitor
from simsiam_tf.features import extraction, knn
from simsiam_tf.loop import compiled_steps
from simsiam_tf.loop.task import Accuracies, RunComponents
from simsiam_tf.nets.whitening import read_quarters

FINAL_SHARE = 0.1  # largest share of the budget that the final evaluation takes,
FINAL_IMAGES = 2000  # unless it has only this number of images or fewer
READ_IMAGES = 512  # images by which reading at the exported backbone's size is timed
MIN_CALLS = 3  # calls of the compiled loop that are timed at least
CALL_SECONDS = 0.25  # about how long a timed call takes, where steps are shorter
TIMING_SHARE, MAX_TIMING_SECONDS = 0.03, 60.0  # share of the budget, and seconds, for timing steps
# Time of a step that goes into records (1.2 %) and checkpoints (0.5 %), by docs/performance.md.
OVERHEAD = 0.02


def time_steps(components: RunComponents, config: Any, budget: float) -> tuple[float, float]:
    """Times training steps: (seconds until the first step has run, mean seconds of a later step).

    These steps train the model. All workers must call this function. The mean, not the median, since a run
    also waits where the machine has other work now and then.

    budget: seconds of the whole run.
    """
    began, limit = time.perf_counter(), min(TIMING_SHARE * budget, MAX_TIMING_SECONDS)
    iterator = compiled_steps.batches(components, config, components.first_step)
    run_steps = compiled_steps.compiled_steps(components, config)

    def time_call(count: int) -> float:
        """Seconds of a call that runs `count` steps: those of the slowest worker."""
        began = time.perf_counter()
        run_steps(iterator, tf.constant(count))[0].numpy()
        return components.workers.all_reduce_max(time.perf_counter() - began)[0]

    time_call(1)
    traced = time.perf_counter() - began
    warm_up = 0.0  # seconds of steps whose batches were prefetched while the first step was traced
    for _ in range(pipeline.PREFETCHED_STEPS + 2):
        warm_up += time_call(1) if warm_up < limit else 0
    calls, steps, spent, count = 0, 0, 0.0, 1
    while calls < MIN_CALLS or spent < limit:
        seconds = time_call(count)
        calls, steps, spent = calls + 1, steps + count, spent + seconds
        count = max(1, min(2 * count, int(CALL_SECONDS * count / seconds), config.log_every))
    return traced, (1 + OVERHEAD) * spent / steps


@dataclasses.dataclass(frozen=True)
class TimedMonitor(Monitor):
    """A monitor that times its evaluations.

    rates: for each evaluation, (seconds to extract the features of an image, seconds to compare a pair of a
        bank image and a query). Each of several workers times its share as if it were alone.
    """

    rates: list[tuple[float, float]] = dataclasses.field(default_factory=list)

    def accuracy(
        self, encode: SourceEncoder, images: int | None = None, shrinkage: float | None = None
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
        """Seconds of an evaluation of `images` images (None: all) by the rates of an earlier evaluation."""
        bank, queries = map(len, self.sample(images))
        return (rate[0] * (bank + queries) + rate[1] * bank * queries) / self._workers

    @property
    def _workers(self) -> int:
        return 1 if self.workers is None else self.workers.count


@dataclasses.dataclass(frozen=True)
class EvaluationTimes:
    """Seconds that the evaluations and the whitening of a run take.

    evaluation: an evaluation during the training.
    whitening: whitening at the export.
    final: number of images (None: all) → the evaluation of baselines and trained backbone at the end.
    """

    evaluation: float
    whitening: float
    final: Callable[[int | None], float]


def time_baselines(
    monitor: Monitor | LabelFreeMonitor, untrained: keras.Model, images: int, read_size: int | None = None
) -> tuple[Accuracies, EvaluationTimes]:
    """Evaluates the baselines: (accuracies, times of later evaluations).

    images: number of images of this evaluation and of those during the training. read_size: side in pixels of
    the images that the exported backbone reads; None where features are not whitened.
    """
    source = monitor.bank if isinstance(monitor, Monitor) else monitor.source
    read = seconds_to_read(untrained, source, monitor.views, read_size) if read_size else 0.0
    whitening = read * min(finishing.FITTED_IMAGES, source.size)
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
    """Seconds per image in which a backbone reads features by quarters at `size` pixels.

    images: number of images by which this is timed.
    """
    network, views = read_quarters(backbone, size), finishing.reading_views(views, size)
    many = min(source.size, images)

    def read(count: int) -> None:
        extraction.extract(network, source, views, np.arange(count))

    return seconds_per_image(seconds_when_traced(read), many // 8, many)


def seconds_of_call(call: Callable[[int], None], images: int) -> float:
    """Seconds of call(images). images: number of images that the call works on."""
    began = time.perf_counter()
    call(images)
    return time.perf_counter() - began


def seconds_when_traced(call: Callable[[int], None]) -> Callable[[int], float]:
    """Number of images → seconds of a second call, which need not trace what the first call traced."""

    def seconds(images: int) -> float:
        call(images)
        return seconds_of_call(call, images)

    return seconds


def seconds_per_image(seconds: Callable[[int], float], few: int, many: int) -> float:
    """Seconds that each further image adds to a call, from a call on `few` and one on `many` images.

    The mean of one call would be far too high: starting the input pipeline alone takes most of a second.
    """
    if few in (0, many):
        return seconds(many) / many
    return max(0.0, seconds(many) - seconds(few)) / (many - few)


def final_images(size: int, final: Callable[[int | None], float], budget: float) -> int | None:
    """The number of images of a final evaluation that takes at most FINAL_SHARE of the budget; None: all.

    size: number of all images. final: as in `EvaluationTimes`. budget: seconds of the whole run.
    """
    count = size
    while final(count) > FINAL_SHARE * budget and count > FINAL_IMAGES:
        count = max(FINAL_IMAGES, count * 2 // 3)
    return None if count == size else count
