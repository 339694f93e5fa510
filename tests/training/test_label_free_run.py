"""A run on images without labels is judged, says whether it beat raw pixels, and is resumed to the bit."""

import json

import keras
import numpy as np
import pytest
from helpers.runs import StopAt, state, tiny

from simsiam_tf.config import to_flags
from simsiam_tf.evaluate.label_free import LabelFreeMonitor
from simsiam_tf.html_report import history
from simsiam_tf.training import inspection, pretraining, run_summary

FLAGS = ("--batch_size=16", "--epochs=2", "--image_size=8", "--log_every=2", "--knn_every=1")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(40):
        keras.utils.save_img(folder / f"{i:02d}.png", np.random.default_rng(i).random([8, 8, 3]))
    return f"--data=folder:{folder}"


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    config = tiny(tmp_path_factory.mktemp("whole"), images, *FLAGS)
    return config, pretraining.pretrain(config)


def rows_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_it_is_judged_before_during_and_at_the_end(whole):
    config, outcome = whole
    judged = [r for r in rows_of(outcome.workdir) if "recall1" in r]
    assert [(r["step"], r.get("epoch")) for r in judged] == [(0, 0), (3, 1), (5, 2), (5, None)]
    assert judged[-1]["images"] == "all" and all({"mrr", "rankme"} <= set(r) for r in judged)
    assert set(outcome.accuracy) == {"raw pixels", "untrained backbone", "backbone"}
    untrained = {k: v for k, v in judged[0].items() if k not in ("step", "epoch")}
    last = outcome.accuracy["untrained backbone"]
    assert last | untrained == last, "the same sample at the start and at the end"
    assert all("whitened_recall1" in measures for measures in outcome.accuracy.values())
    said = (outcome.workdir / "train.log").read_text()
    assert "retrieval of the own image of the baselines on 40 images" in said
    assert "raw pixels: own image found" in said and "untrained backbone: own image found" in said
    assert not any("knn20" in r for r in judged)


@pytest.mark.slow
def test_a_run_that_loses_says_so_last_and_what_to_change(whole):
    config, outcome = whole
    *_, table, last = run_summary.pretraining_summary(config, outcome).split("\n\n")
    starts = ("The features do not beat", "There is no clear difference")
    assert last.startswith(starts), "five steps at random images teach nothing"
    assert "5 steps are few: train longer (--epochs)" in last.replace("\n", " ")
    summary = run_summary.pretraining_summary(config, outcome)
    assert "own image   whitened        MRR     RankMe\n" in summary and "k = 20" not in summary
    assert len(last.splitlines()) <= 6
    ask = f"curate --weights={outcome.workdir} --data={config.data} --out={outcome.workdir / 'answers'}\n"
    assert f"or ask about the images:\n  python -m simsiam_tf.{ask}" in summary
    page = history.outcome_section(history.read_history(outcome.workdir))
    assert page.text[1].replace("\n", " ") == last.replace("\n", " ")
    assert page.tables[1][0][1:] == ["own image", "whitened", "MRR", "RankMe"] and len(page.tables[1]) == 4
    charts = history.curves_section(history.read_history(outcome.workdir)).charts
    assert any("Own image found" in chart.alt for chart in charts)


@pytest.mark.slow
def test_a_run_that_wins_says_so_last(images, tmp_path, monkeypatch):
    first = {}

    def measured(self, backbone, images=None, read_size=None):
        """Trained weights find every image."""
        weight = backbone.trainable_variables[0].numpy().sum()
        trained = first.setdefault("weight", weight) != weight
        return {"recall1": 1.0 if trained else 0.125, "mrr": 1.0, "rankme": 3.0}

    monkeypatch.setattr(LabelFreeMonitor, "backbone_accuracy", measured)
    monkeypatch.setattr(LabelFreeMonitor, "queries_of", lambda *args: 10**6)  # so that any gain is clear
    config = tiny(tmp_path, images, *FLAGS)
    summary = run_summary.pretraining_summary(config, pretraining.pretrain(config))
    last = summary.split("\n\n")[-1].replace("\n", " ")
    assert last.startswith("The features beat raw pixels (") and last.endswith("own image found 100.0 %.")
    assert "untrained weights (12.5 %)" in last


@pytest.mark.slow
def test_interrupted_twice_its_records_are_the_same(images, whole, tmp_path):
    config = tiny(tmp_path, images, *FLAGS)
    ends = [pretraining.pretrain(config, callbacks=[StopAt(stop)]).status for stop in (1, 4, 99)]
    assert ends == [pretraining.INTERRUPTED, pretraining.INTERRUPTED, pretraining.DONE]
    assert state(tmp_path) == state(whole[1].workdir)


@pytest.mark.slow
def test_a_dry_run_names_the_monitor(images, tmp_path, capsys):
    config = tiny(tmp_path, images, *FLAGS)
    assert inspection.dry_run(config) == 0 and "--monitor=auto" in to_flags(config)
    assert "retrieval of the own image: 40 images every 1 epoch, 40 at the end" in capsys.readouterr().out
