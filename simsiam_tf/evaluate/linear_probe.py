"""A linear classifier on features that are made once, its regularisation or rate chosen by a sweep."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np

from simsiam_tf.evaluate import sgd_probe
from simsiam_tf.evaluate.label_splits import balanced
from simsiam_tf.runtime import progress

STRENGTHS = tuple(10.0**e for e in range(-4, 3))  # scikit-learn's C: the inverse of the L2 penalty
HELD_OUT = 0.1  # of the training images, of every class: what the choice is made on
ITERATIONS = 1000
PATIENCE = 2  # strengths in a row below the best, after which weaker regularisation is not tried


@dataclasses.dataclass(frozen=True)
class Probe:
    """How a sweep went; accuracies in [0, 1].

    validation: strength or rate → accuracy on the held-out part of the training images.
    chosen: the best one there, with which all training images were learned from.
    test: accuracy on the test images, scored once.
    converged: whether the last fit did within ITERATIONS; None where that is no question.
    """

    validation: dict[float, float]
    chosen: float
    test: float
    converged: bool | None = None


def logistic(
    features: np.ndarray,
    labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> Probe:
    """Multinomial logistic regression of scikit-learn on standardised features.

    Mean and scale of the features are those of what is learned from. From strong regularisation to weak,
    the sweep ends where PATIENCE strengths in a row were worse than the best.

    Args:
        features, labels: [N, F], int [N], to learn from and to choose by.
        test_features, test_labels: scored once, with the chosen strength.
        strengths: inverse L2 penalties to choose from, each above 0, in any order.
        seed: of which images are held out for the choice.
    """
    kept, held = _held_out(labels, seed)
    choosing, validation = _Regression(features[kept], labels[kept]), {}
    for strength in progress.bar(sorted(strengths), "logistic regression", unit="fit"):
        choosing.fit(strength)
        validation[strength] = choosing.accuracy(features[held], labels[held])
        if max(list(validation.values())[-PATIENCE:]) < max(validation.values()):
            break  # weaker ones take the longest, and overfit more
    chosen = max(validation, key=validation.get)
    final = _Regression(features, labels)
    converged = final.fit(chosen)
    return Probe(validation, chosen, final.accuracy(test_features, test_labels), converged)


def descent(
    features: np.ndarray,
    labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    kind: str = "lars",
    rates: Sequence[float] | None = None,
    epochs: float = 90.0,
    seed: int = 0,
) -> Probe:
    """Cross-entropy by LARS or SGD on features as they are, not standardised (`heads.trained`).

    Args:
        features, labels: [N, F], int [N], to learn from and to choose by.
        test_features, test_labels: scored once, with the chosen rate.
        kind: "lars" or "sgd".
        rates: to choose from; `heads.RATES` when None.
        epochs: passes over the features.
        seed: of the held-out choice, initial weights and order.
    """
    kept, held = _held_out(labels, seed)
    rates = sorted(sgd_probe.RATES[kind] if rates is None else rates)
    found = sgd_probe.trained(features, labels, kept, rates, kind, epochs, seed)
    validation = {
        rate: head.accuracy(features, labels, held) for rate, head in zip(rates, found, strict=True)
    }
    chosen = max(validation, key=validation.get)
    (head,) = sgd_probe.trained(features, labels, np.arange(len(labels)), [chosen], kind, epochs, seed)
    return Probe(validation, chosen, head.accuracy(test_features, test_labels))


def _held_out(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids to learn from, ids to choose by) of the training images."""
    held = balanced(labels, HELD_OUT, seed)
    return np.setdiff1d(np.arange(len(labels)), held), held


class _Regression:
    """Standardisation, then logistic regression; a fit begins where the one before ended."""

    def __init__(self, features: np.ndarray, labels: np.ndarray) -> None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        self._scaler, self._labels = StandardScaler(), labels
        self._features = self._scaler.fit_transform(np.asarray(features, np.float64))
        self._model = LogisticRegression(max_iter=ITERATIONS, warm_start=True)

    def fit(self, strength: float) -> bool:
        """Whether it converged."""
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            self._model.set_params(C=strength).fit(self._features, self._labels)
        return not any(issubclass(w.category, ConvergenceWarning) for w in caught)

    def accuracy(self, features: np.ndarray, labels: np.ndarray) -> float:
        return float(self._model.score(self._scaler.transform(np.asarray(features, np.float64)), labels))
