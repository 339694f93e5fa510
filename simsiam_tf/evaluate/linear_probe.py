"""Linear classifiers on stored features; a sweep chooses their regularisation or learning rate."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np

from simsiam_tf.evaluate.label_splits import balanced
from simsiam_tf.evaluate.linear_heads import RATES, train_heads
from simsiam_tf.runtime import progress

STRENGTHS = tuple(10.0**e for e in range(-4, 3))  # scikit-learn's C: the inverse of the L2 penalty
VALIDATION_SHARE = 0.1  # share of the training images of every class
ITERATIONS = 1000
PATIENCE = 2  # the sweep ends after this many strengths in a row below the best


@dataclasses.dataclass(frozen=True)
class Probe:
    """The result of a sweep; accuracies in [0, 1].

    validation: strength or learning rate → accuracy on the validation share of the training images.
    chosen: the best of them, with which the final classifier was trained on all training images.
    test: its accuracy on the test images, computed once.
    converged: whether its training converged within ITERATIONS; None for SGD and LARS.
    """

    validation: dict[float, float]
    chosen: float
    test: float
    converged: bool | None = None


def logistic_probe(
    features: np.ndarray,
    labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> Probe:
    """Multinomial logistic regression of scikit-learn on standardised features.

    Features are standardised by the mean and scale of the images trained on. The sweep goes from strong
    regularisation to weak and ends after PATIENCE strengths in a row that are worse than the best.

    Args:
        features, labels: [N, F], int [N], the training images.
        test_features, test_labels: scored once, with the chosen strength.
        strengths: inverse L2 penalties to choose from, each above 0, in any order.
        seed: seed of the choice of validation images.
    """
    train, held_out = _validation_split(labels, seed)
    model, validation = _Regression(features[train], labels[train]), {}
    for strength in progress.bar(sorted(strengths), "logistic regression", unit="fit"):
        model.fit(strength)
        validation[strength] = model.accuracy(features[held_out], labels[held_out])
        if max(list(validation.values())[-PATIENCE:]) < max(validation.values()):
            break  # weaker ones take the longest, and overfit more
    chosen = max(validation, key=validation.__getitem__)
    final = _Regression(features, labels)
    converged = final.fit(chosen)
    return Probe(validation, chosen, final.accuracy(test_features, test_labels), converged)


def sgd_probe(
    features: np.ndarray,
    labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    optimizer_name: str = "lars",
    rates: Sequence[float] | None = None,
    epochs: float = 90.0,
    seed: int = 0,
) -> Probe:
    """A linear classifier by LARS or SGD on features that are not standardised (`train_heads`).

    Args:
        features, labels: [N, F], int [N], the training images.
        test_features, test_labels: scored once, with the chosen rate.
        optimizer_name: "lars" or "sgd".
        rates: learning rates to choose from; `linear_heads.RATES` when None.
        epochs: passes over the features.
        seed: seed of the validation images, initial weights and order.
    """
    train, held_out = _validation_split(labels, seed)
    rates = sorted(RATES[optimizer_name] if rates is None else rates)
    heads = train_heads(features, labels, train, rates, optimizer_name, epochs, seed)
    accuracies = (head.accuracy(features, labels, held_out) for head in heads)
    validation = dict(zip(rates, accuracies, strict=True))
    chosen = max(validation, key=validation.__getitem__)
    (head,) = train_heads(features, labels, np.arange(len(labels)), [chosen], optimizer_name, epochs, seed)
    return Probe(validation, chosen, head.accuracy(test_features, test_labels))


def _validation_split(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the training images: (for training, for validation)."""
    held_out = balanced(labels, VALIDATION_SHARE, seed)
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


class _Regression:
    """Standardisation, then logistic regression; each fit starts from the weights of the one before."""

    def __init__(self, features: np.ndarray, labels: np.ndarray) -> None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        self._scaler, self._labels = StandardScaler(), labels
        self._features = self._scaler.fit_transform(np.asarray(features, np.float64))
        self._model = LogisticRegression(max_iter=ITERATIONS, warm_start=True)

    def fit(self, strength: float) -> bool:
        """Fits with an inverse L2 penalty; returns whether it converged."""
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            self._model.set_params(C=strength).fit(self._features, self._labels)
        return not any(issubclass(w.category, ConvergenceWarning) for w in caught)

    def accuracy(self, features: np.ndarray, labels: np.ndarray) -> float:
        return float(self._model.score(self._scaler.transform(np.asarray(features, np.float64)), labels))
