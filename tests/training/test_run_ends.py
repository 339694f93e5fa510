"""How a run ends: stopped by a callback, collapsed at its last record, within an epoch, without a metric."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.runs import tiny

from simsiam_tf.evaluate.diagnosis import Diagnosis
from simsiam_tf.loop.outcome import COLLAPSED, DIVERGED, DONE, Outcome
from simsiam_tf.loop.task import Evaluator
from simsiam_tf.training import pretraining, run_summary


def rows_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_weights_that_are_no_numbers_are_not_exported_where_a_callback_stops_the_run(tmp_path):
    class PoisonAndStop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch + 1 >= 10:
                gamma = self.model.backbone.trainable_variables[1]
                gamma.assign(gamma * np.nan)
                self.model.stop_training = True

    outcome = pretraining.pretrain(tiny(tmp_path, "--monitor=none"), callbacks=[PoisonAndStop()])
    assert outcome.status == DIVERGED and outcome.diagnosis.name == "divergence"
    assert not (tmp_path / "export").exists()


@pytest.mark.slow
def test_a_run_that_collapsed_at_its_end_is_not_exported_by_the_same_command(tmp_path, monkeypatch):
    def diagnosed(records, *args):
        return Diagnosis("collapse" if records and records[-1]["step"] == 22 else "healthy", "made up")

    monkeypatch.setattr(pretraining, "diagnose", diagnosed)
    config = tiny(tmp_path, "--monitor=none", "--fail_on_collapse")
    for _ in range(2):
        assert pretraining.pretrain(config).status == COLLAPSED
        assert not (tmp_path / "export").exists()


@pytest.mark.slow
def test_a_run_that_ends_within_an_epoch_is_not_evaluated_twice(tmp_path):
    outcome = pretraining.pretrain(tiny(tmp_path, "--epochs=1.3", "--knn_every=2", "--knn_images=300"))
    assert outcome.status == DONE
    evaluated = [(r["step"], r.get("epoch")) for r in rows_of(tmp_path) if "knn20" in r]
    assert evaluated == [(0, 0), (29, None)]


def test_an_evaluation_is_due_after_whole_epochs():
    evaluator = Evaluator(2)
    assert [evaluator.due(epoch) for epoch in range(1, 5)] == [False, True, False, True]
    evaluator.is_whole_epoch = False
    assert not evaluator.due(2) and not Evaluator(0).due(1)


@pytest.mark.parametrize(
    ("values", "line"),
    [({}, "loss 1.000"), ({"class_accuracy": 0.5}, "loss 1.000, class accuracy 50.0%")],
)
def test_a_transfer_without_an_object_in_its_last_record_has_a_summary(values, line):
    class Config:
        task = "detection"

    record = {"step": 1, "loss": 1.0, "loss_spread": 0.0, **values}
    healthy = Diagnosis("healthy", "")
    outcome = Outcome(DONE, 1, healthy, {"detection": {"AP": 0.25}}, Path("w"), [record], config=Config())
    text = run_summary.transfer_summary(outcome, {"network": Path("export/detector.keras")})
    assert f"  training images  {line}\n" in text and "AP 25.0%" in text
