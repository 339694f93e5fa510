"""The option `minutes`: measures the costs of a run by a trial run, which is discarded."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from simsiam_tf.data import sampling
from simsiam_tf.evaluate import finishing
from simsiam_tf.evaluate.label_free import IMAGES, LabelFreeMonitor
from simsiam_tf.features import extraction
from simsiam_tf.loop.task import Accuracies
from simsiam_tf.recipes import budget, timing
from simsiam_tf.training.build_run import knn_every

if TYPE_CHECKING:
    from simsiam_tf.training.pretraining import Pretraining

log = logging.getLogger("simsiam_tf.run")

FEW_IMAGES, MANY_IMAGES = 24, 96  # the difference of their times gives the cost of an image
FORWARD_PASSES = 3  # forward passes that cost as much as a training step on a view
# Estimates are too high, since an image takes longer in small batches than in large ones. So a run is refused
# only where this share of the estimate does not fit.
REFUSED_SHARE = 2 / 3


def estimate_costs(trial: Pretraining) -> budget.Costs:
    """Estimates the costs of a whole run, baselines included, in seconds where `measure` takes minutes."""
    config, components, monitor = trial.config, trial.components, trial.monitor
    assert monitor is not None
    backbone, views, source = components.model.backbone, components.views, monitor.source

    def evaluate(images: int) -> None:
        monitor.baselines(backbone, images)

    def extract(images: int) -> None:
        extraction.extract(backbone, source, views, np.arange(images))

    def read_views(images: int) -> None:
        for _ in extraction.evaluation_views(source, views, np.arange(images)):
            pass

    def per_image(call: Callable[[int], None], few: int, many: int) -> float:
        return timing.seconds_per_image(timing.seconds_when_traced(call), few, many)

    traced = timing.seconds_of_call(evaluate, FEW_IMAGES)
    rate = per_image(evaluate, monitor.size(FEW_IMAGES), monitor.size(MANY_IMAGES))
    few, many = (min(images, source.size) for images in (FEW_IMAGES, MANY_IMAGES))
    forward, read = per_image(extract, few, many), 0.0
    decode = min(forward, per_image(read_views, few, many))
    if trial.read_size:
        read = timing.seconds_to_read(backbone, source, views, trial.read_size, MANY_IMAGES)
    count = min(monitor.size(), timing.FINAL_IMAGES) if config.final_images is None else config.final_images
    final = monitor.size(count) * (1.5 * rate + 2 * read)
    if not isinstance(monitor, LabelFreeMonitor):
        judged = min(IMAGES, source.size, count)
        final += 3 * LabelFreeMonitor.views_per_image * judged * forward
    baselines = rate * monitor.size(config.knn_images) + 2 * read * min(timing.READ_IMAGES, source.size)
    parts = {
        "baselines": baselines,
        "building the model and its first step": 2 * components.build_seconds + traced,
        "whitening": read * min(finishing.FITTED_IMAGES, source.size),
        "final evaluation": final if count else 0.0,
    }
    in_memory = components.source.pixels is not None or components.source.squares is not None
    image = decode * (not in_memory) + FORWARD_PASSES * components.views.count * (forward - decode)
    step = image * config.batch_size
    return budget.Costs(sum(parts.values()), step, final_images=config.final_images, parts=parts)


def check_minutes(trial: Pretraining, left: float) -> None:
    """Raises UserError where `minutes` are far too short; called before baselines are evaluated.

    left: seconds that are left of `minutes`.
    """
    if trial.monitor is None:
        return
    costs = estimate_costs(trial)
    fixed, step, left = trial.components.workers.from_chief([costs.fixed, costs.step, left])
    log.warning("estimated from %d images: %s", min(MANY_IMAGES, trial.monitor.source.size), costs.parts_text)
    if REFUSED_SHARE * (fixed + budget.MIN_STEPS * step) > left:
        raise budget.too_short(trial.config, costs, left)


def measure(trial: Pretraining, seconds: float) -> tuple[Accuracies, budget.Costs]:
    """Evaluates the baselines and times some steps: (accuracies of the baselines, costs of the run).

    seconds: time allowed for the whole run.
    """
    config, components, monitor = trial.config, trial.components, trial.monitor
    baselines, costs = {}, budget.Costs(0.0, 0.0, final_images=config.final_images)
    parts = {"building the model and its first step": 0.0, "whitening": 0.0, "final evaluation": 0.0}
    if monitor is not None:
        time_baselines = functools.partial(timing.time_baselines, monitor, read_size=trial.read_size)
        baselines, times = trial.evaluate_baselines(time_baselines)
        costs.evaluation, parts["whitening"] = times.evaluation, times.whitening
        epochs = knn_every(components, config)
        costs.evaluation_steps = sampling.epoch_end(epochs, components.source.size, config.batch_size)
        if costs.final_images is None:
            costs.final_images = timing.final_images(monitor.size(), times.final, seconds)
        if costs.final_images != 0:
            parts["final evaluation"] = components.build_seconds + times.final(costs.final_images)
    traced, costs.step = timing.time_steps(components, config, seconds)
    # The run builds the model a second time, and the export loads it.
    parts["building the model and its first step"] = 2 * components.build_seconds + traced
    costs.fixed, costs.parts = sum(parts.values()), parts
    return baselines, costs
