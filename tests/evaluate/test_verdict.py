"""The verdict names what was beaten, with figures, and what to change by what is known of the run."""

import numpy as np
import pytest
import scipy.stats

from simsiam_tf.evaluate.diagnosis import Diagnosis
from simsiam_tf.evaluate.verdict import margin, measured_title, measures_text, verdict

HEALTHY = Diagnosis("healthy", "loss -0.9")
CONFIG = {"backbone": "resnet18", "weights": None, "method": "simsiam", "crop_area": None, "monitor": "auto"}


def measures(raw, untrained, trained, name="recall1"):
    return {"raw pixels": {name: raw}, "untrained backbone": {name: untrained}, "backbone": {name: trained}}


def records(steps=5000, losses=(-0.2, -0.8, -0.9, -0.9, -0.9, -0.9), std=0.9, rank=30.0):
    count = len(losses)
    rows = [{"step": steps * (i + 1) // count, "loss": loss} for i, loss in enumerate(losses)]
    return [{**row, "std": std, "rank": rank} for row in rows]


def said(accuracy, diagnosis=HEALTHY, rows=None, **config):
    return verdict(accuracy, diagnosis, records() if rows is None else rows, {**CONFIG, **config})


def test_features_that_win_are_said_to_with_figures():
    assert said(measures(0.3, 0.2, 0.5)) == (
        "The features beat raw pixels (30.0 %) and untrained weights (20.0 %): own image found 50.0 %."
    )
    both = {name: {**v, "knn20": 0.6, "knn200": 0.5} for name, v in measures(0.3, 0.2, 0.5).items()}
    both["backbone"]["knn20"] = 0.8
    assert "beat raw pixels (60.0 %)" in said(both) and "kNN-20 80.0 %" in said(both), "labels decide"
    for name, value in (("raw pixels", 0.9), ("untrained backbone", 0.1), ("backbone", 0.7)):
        both[name]["whitened_knn20"] = value
    assert "do not beat raw pixels (90.0 %): kNN-20 of whitened features 70.0 %" in said(both)


@pytest.mark.parametrize("begun", [{"weights": "runs/a"}, {"backbone": "keras:MobileNetV2+imagenet"}])
def test_weights_that_were_loaded_are_not_called_untrained(begun):
    assert "beat raw pixels (30.0 %) and the weights that the run began with (20.0 %)" in said(
        measures(0.3, 0.2, 0.5), **begun
    )
    assert said({}, monitor="none", **begun).startswith(
        "Not compared with raw pixels and the weights that the run began with (monitor=none)."
    )
    names = ("raw pixels", "untrained backbone", "backbone")
    assert [measured_title(name, CONFIG) for name in names] == [*names[:2], "this backbone"]
    assert measured_title("untrained backbone", {**CONFIG, **begun}) == "initial weights"


def test_features_that_lose_or_are_level_are_said_to():
    text = said(measures(0.5, 0.2, 0.4))
    start = "The features do not beat raw pixels (50.0 %): own image found 40.0 %; they beat untrained"
    assert text.startswith(f"{start} weights (20.0 %). ")
    level = said(measures(0.5, 0.2, 0.505))
    start = (
        "There is no clear difference from raw pixels (50.0 %): own image found 50.5 %; they beat untrained"
    )
    assert level.startswith(f"{start} weights (20.0 %). Up to 1.0 points may be chance. ")
    assert said(measures(0.5, 0.4, 0.3)).startswith(
        "The features do not beat raw pixels (50.0 %) or untrained weights (40.0 %): own image found 30.0 %. "
    )


@pytest.mark.parametrize(
    ("raw", "trained", "queries", "said_of_it"),
    [
        (0.986, 0.986, 2000, "no clear difference"),
        (0.983, 0.986, 2000, "no clear difference"),
        (0.983, 0.986, 200_000, "beat"),
        (0.6, 0.7, 100, "no clear difference"),
        (0.6, 0.8, 100, "beat"),
        (0.8, 0.6, 100, "do not beat"),
        (0.0, 0.0, 100, "no clear difference"),
    ],
)
def test_a_difference_counts_above_two_standard_errors(raw, trained, queries, said_of_it):
    """Against SciPy: the difference of two shares of so many draws each."""
    accuracy = measures(raw, 0.0, trained)
    accuracy["backbone"]["recall1_queries"] = queries
    text = said(accuracy)
    errors = [scipy.stats.binom.std(queries, p) / queries for p in (raw, trained)]
    limit = max(2 * np.hypot(*errors), 1 / queries)
    assert margin(trained, raw, queries) == pytest.approx(limit)
    assert {"beat": trained - raw > limit, "do not beat": raw - trained > limit}.get(
        said_of_it, abs(trained - raw) <= limit
    )
    starts = {"beat": "The features beat raw", "do not beat": "The features do not beat raw"}
    assert text.startswith(starts.get(said_of_it, "There is no clear difference from raw"))
    if said_of_it == "no clear difference":
        assert f"Up to {100 * limit:.1f} points may be chance" in text and f"on {queries:,} queries" in text


def test_whitening_that_costs_accuracy_is_named():
    accuracy = measures(0.3, 0.2, 0.5, "whitened_recall1")
    for plain, named in ((0.6, True), (0.505, False), (0.4, False)):
        accuracy["backbone"]["recall1"] = plain
        text = said(accuracy)
        assert text.startswith("The features beat raw pixels (30.0 %)")
        assert ("without whitening 60.0 %" in text and "rerun with finish=none" in text) == named


def test_one_baseline_may_win_and_the_other_be_level():
    assert said(measures(0.5, 0.3, 0.3)).startswith(
        "The features do not beat raw pixels (50.0 %): own image found 30.0 %. There is no clear difference "
        "from untrained weights (30.0 %). Up to 1.0 points may be chance. "
    )


LOST = measures(0.5, 0.2, 0.4)
ADVICE = [  # (what is known of the run, what the advice names, what it does not)
    ({"diagnosis": Diagnosis("partial collapse", "rank 3")}, ["stronger augmentation"], ["simclr"]),
    ({"rows": records(std=0.3)}, ["loses dimensions"], ["published"]),
    ({"rows": records(rank=3.0)}, ["loses dimensions"], ["published"]),
    ({"rows": records(rank=3.0), "method": "distill"}, ["predictions lose dimensions"], ["`d`", "crop_area"]),
    ({"rows": records(878)}, ["878 steps", "`epochs`", "method=simclr", "`base_lr`", "crop_area=0.4"], []),
    ({"rows": records(878), "method": "simclr"}, ["`epochs`", "`base_lr`"], ["method=simclr"]),
    ({"rows": records(878), "crop_area": 0.5}, ["method=simclr"], ["crop_area"]),
    ({"rows": records(losses=(-0.2, -0.3, -0.5, -0.6, -0.7, -0.8))}, ["still falling"], ["published"]),
    ({}, ["published weights", "backbone=keras:", "several times as long (`epochs`)"], ["falling"]),
]  # fmt: skip


@pytest.mark.parametrize(("known", "named", "left_out"), ADVICE)
def test_advice_follows_from_what_is_known_of_the_run(known, named, left_out):
    text = said(LOST, **known)
    assert all(word in text for word in named) and not any(word in text for word in left_out), text


@pytest.mark.parametrize(("budget", "named"), [({"minutes": 4.0}, "minutes"), ({}, "epochs")])
def test_advice_to_train_longer_names_what_decides_how_long(budget, named):
    assert f"train longer (`{named}`)" in said(LOST, rows=records(500), **budget)


@pytest.mark.parametrize("start", [{"weights": "runs/a"}, {"backbone": "keras:EfficientNetV2B0+imagenet"}])
def test_a_run_from_weights_is_compared_with_them(start):
    text = said(measures(0.2, 0.5, 0.4), **start)
    assert "do not beat the weights that the run began with (50.0 %)" in text and "lower `base_lr`" in text
    assert "published" not in text
    assert "beat raw pixels (20.0 %) and the weights" in said(measures(0.2, 0.3, 0.4), **start)


def test_a_run_that_was_not_compared_says_why():
    assert said({}, monitor="none") == ("Not compared with raw pixels and untrained weights (monitor=none).")
    baselines = {k: v for k, v in LOST.items() if k != "backbone"}
    assert "goes on" not in said(baselines, Diagnosis("divergence", "loss nan at step 7"))
    assert "(the run diverged)" in said(baselines, Diagnosis("divergence", "loss nan at step 7"))
    assert "(final_images=0)" in said(baselines, final_images=0)
    text = said(baselines, Diagnosis("collapse", "std 0"))
    assert "has not come to its end" in text and "stop_gradient=" in text
    assert said({}, rows=[], monitor="none")


def test_measures_are_written_in_words():
    text = measures_text({"mrr": 0.25, "recall1": 0.2, "rankme": 41.03, "odd": 1})
    assert text == "own image found 20.0 %, mean reciprocal rank 0.250, RankMe 41.0"
