"""Scores of stored features: which options act on them."""

import types

import numpy as np

from simsiam_tf.data import from_arrays
from simsiam_tf.evaluate import cached_scores
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
