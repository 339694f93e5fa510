"""Scores of stored features: which options act on them, and what few test images are said to show."""

import types

import numpy as np

from simsiam_tf.data import from_arrays
from simsiam_tf.evaluate import cached_scores, chance
from simsiam_tf.evaluate.label_splits import Splits, balanced


def test_the_seed_chooses_the_images_by_which_k_is_chosen(monkeypatch):
    monkeypatch.setattr(cached_scores, "LEAVE_ONE_OUT_IMAGES", 40)
    rng, labels = np.random.default_rng(0), np.arange(400) % 4
    source = from_arrays("noise", np.zeros([400, 4, 4], np.uint8), labels, "abcd")
    features = (rng.normal(size=(4, 8))[labels] + 1.5 * rng.normal(size=(400, 8))).astype(np.float32)
    chosen_rows, accuracy = [], cached_scores.knn_accuracy

    def recorded(*args, **options):
        if "query_rows" in options:
            chosen_rows.append(options["query_rows"].tolist())
        return accuracy(*args, **options)

    monkeypatch.setattr(cached_scores, "knn_accuracy", recorded)
    for seed in (0, 0, 1):
        config = types.SimpleNamespace(ks=(1, 5), temperature=0.1, seed=seed)
        cached_scores.knn_scores(config, Splits(source, source, 4), {"this backbone": (features, features)})
    assert chosen_rows[0] == chosen_rows[1] == balanced(labels, 0.1).tolist() != chosen_rows[2]


def table_of_few(images, tested):
    """The table of knn_eval for so many training and test images, of two classes and easy features."""
    labels = np.arange(images + tested) % 2
    pixels = np.zeros([images + tested, 4, 4], np.uint8)
    train = from_arrays("train", pixels[:images], labels[:images], "ab")
    test = from_arrays("test", pixels[:tested], labels[:tested], "ab")
    features = np.eye(2, dtype=np.float32)[labels] + 0.1
    config = types.SimpleNamespace(ks=(1, 5, 200), temperature=0.1, seed=0)
    splits = Splits(train, test, 2)
    scores = cached_scores.knn_scores(
        config, splits, {"this backbone": (features[:images], features[:tested])}
    )
    result = {**scores, "train": "train", "test": "test", "whitened": False}
    return scores, cached_scores._result_table(result)


def test_few_test_images_show_their_counts_and_what_may_be_chance():
    scores, table = table_of_few(54, 6)
    assert list(scores["accuracy"]["this backbone"]) == ["k = 1", "k = 5", "chosen k"]
    assert "100.0% (6/6)" in table and "Left out: k = 200, above 54 training images." in table
    assert "On 6 test images, a difference of up to 38.2 points may be chance. They are few" in table


def test_many_test_images_show_no_counts():
    scores, table = table_of_few(400, 200)
    assert "k = 200" in scores["accuracy"]["this backbone"] and "Left out" not in table
    assert "(200/200)" not in table and "few" not in table
    assert "On 200 test images, a difference of up to 1.4 points may be chance." in table


def test_a_difference_within_two_standard_errors_may_be_chance():
    assert chance.chance_text([0.5], 10_000) == (
        "On 10,000 test images, a difference of up to 1.4 points may be chance."  # 2 √(2 · 0.25 / 10,000)
    )
    assert chance.classifier_text({"top1": 2 / 3}, 6, ".1%") == "top-1 66.7% (4/6)"
