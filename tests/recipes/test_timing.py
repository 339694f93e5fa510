"""What is timed for --minutes, by a clock that the test turns."""

import types
from typing import Any, cast

import numpy as np
import pytest
import tensorflow as tf

from simsiam_tf.distributed.workers import Workers
from simsiam_tf.evaluate import knn_monitor
from simsiam_tf.recipes import timing


@pytest.fixture
def clock(monkeypatch):
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


@pytest.mark.parametrize(
    ("step", "budget", "most"),
    [
        (0.01, 120, 400),  # 3 % of two minutes
        (0.01, 10**6, 7000),  # a minute
        (30.0, 600, 200),  # three calls of one step, after one that traces and another
    ],
)
def test_steps_after_the_first_ones_are_timed_for_a_small_share_of_the_budget(
    clock, monkeypatch, step, budget, most
):
    trained = []

    def steps(iterator, count):
        """The first takes ten seconds more; the batches of the next two are made already."""
        for _ in range(int(count)):
            clock.now += step + 10 if not trained else step / 10 if len(trained) < 3 else step
            trained.append(1)
        return tf.zeros([int(count), 3]), tf.zeros([4, 2])

    monkeypatch.setattr(timing.compiled_steps, "batches", lambda *args: None)
    monkeypatch.setattr(timing.compiled_steps, "compiled_steps", lambda *args: steps)
    components: Any = types.SimpleNamespace(workers=Workers(tf.distribute.get_strategy()), first_step=0)
    config = types.SimpleNamespace(log_every=20)
    traced, seconds = timing.time_steps(components, config, budget)
    assert traced == pytest.approx(step + 10)
    assert seconds == pytest.approx((1 + timing.OVERHEAD) * step)
    assert 7 <= len(trained) <= most


def test_an_evaluation_of_all_images_is_foreseen_by_one_of_some(clock, monkeypatch):
    """0.01 s an image of the backbone, 0.001 s of raw pixels, 1 µs a pair; tracing is no part of it."""
    monitor, untrained = knn_monitor.monitor_of("digits"), cast(Any, object())
    traced, view = [], monitor.views.augmentation.size

    def extract(backbone, source, views, ids):
        size = views.augmentation.size
        clock.now += 0.01 * len(ids) * (size / view) ** 2 + (0 if size in traced else 50)
        traced.append(size)
        return np.ones([len(ids), 4], np.float32)

    def raw_pixels(source, views, ids, side=None):
        clock.now += 0.001 * len(ids)
        return np.ones([len(ids), 4], np.float32)

    def knn_accuracy(bank, bank_labels, queries, query_labels, ks):
        clock.now += 1e-6 * len(bank) * len(queries)
        return dict.fromkeys(ks, 0.5)

    monkeypatch.setattr(knn_monitor.extraction, "extract", extract)
    monkeypatch.setattr(knn_monitor.extraction, "raw_pixels", raw_pixels)
    monkeypatch.setattr(knn_monitor, "knn_accuracy", knn_accuracy)
    monkeypatch.setattr(timing, "read_quarters", lambda backbone, size: backbone)
    accuracies, times = timing.time_baselines(monitor, untrained, 300)
    assert times.whitening == 0
    assert list(accuracies) == ["raw pixels", "untrained backbone"]
    bank, queries = map(len, monitor.sample(300))
    assert times.evaluation == pytest.approx(0.01 * (bank + queries) + 1e-6 * bank * queries)
    bank, queries = len(monitor.bank_ids), len(monitor.query_ids)
    assert bank > 4 * 300
    # Raw pixels, the untrained and the trained backbone; each on two views of some images without labels.
    without_labels = 3 * 2 * 0.01 * min(2000, monitor.bank.size)
    by_labels = (0.001 + 2 * 0.01) * (bank + queries) + 3 * 1e-6 * bank * queries
    assert times.final(None) == pytest.approx(by_labels + without_labels)
    # An exported backbone takes four times as long for an image, of which all are measured for the whitening.
    _, times = timing.time_baselines(monitor, untrained, 300, read_size=2 * view)
    assert times.whitening == pytest.approx(4 * 0.01 * monitor.bank.size)
    by_labels += (0.001 + 2 * 4 * 0.01) * (bank + queries) + 3 * 1e-6 * bank * queries
    assert times.final(None) == pytest.approx(by_labels + without_labels)
    assert times.final(300) < times.final(600) < times.final(None) / 1.9


def test_the_final_evaluation_takes_a_tenth_of_the_time():
    linear = lambda images: 0.01 * (images or 60_000)  # noqa: E731
    assert timing.final_images(60_000, linear, 6000) is None
    assert 300 < linear(timing.final_images(60_000, linear, 5000)) <= 500
    assert timing.final_images(60_000, linear, 10) == timing.FINAL_IMAGES
    assert timing.final_images(900, linear, 10) is None
