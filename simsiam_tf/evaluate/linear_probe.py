"""Linear classifiers on stored features; a sweep chooses their regularisation or learning rate."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf import optimizers
from simsiam_tf.data import sampling
from simsiam_tf.evaluate.label_splits import balanced
from simsiam_tf.optimizers import schedules
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.display_text import counted
from simsiam_tf.runtime.errors import UserError

STRENGTHS = tuple(10.0**e for e in range(-4, 3))  # values of scikit-learn's C, 1 / L2 penalty
VALIDATION_SHARE = 0.1  # share of the training images of every class
ITERATIONS = 1000  # most iterations of a logistic regression
PATIENCE = 2  # the sweep ends after this many accuracies in a row below the best
OPTIMIZERS = {"lars": optimizers.LARS, "sgd": optimizers.SGD}
RATES = {
    "lars": (0.3, 1.0, 3.0, 10.0, 30.0),
    "sgd": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0),
}
BATCH = 256  # the paper's reference batch, for which the learning rate is base_lr itself
BLOCK = 2**16  # rows scored at a time


@dataclasses.dataclass(frozen=True)
class Probe:
    """The result of a sweep; accuracies in [0, 1].

    validation: strength or learning rate → accuracy on the validation share of the training images.
    chosen: the best strength or rate, with which the final classifier was trained on all training images.
    test: accuracy of the final classifier on the test images, computed once.
    held_out: number of images of that share.
    converged: whether the final training converged within ITERATIONS; None for SGD and LARS.
    """

    validation: dict[float, float]
    chosen: float
    test: float
    held_out: int
    converged: bool | None = None


def logistic_probe(
    features: np.ndarray,
    labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> Probe:
    """scikit-learn's multinomial logistic regression on features that are centred and scaled.

    All features are divided by one number, the root of their mean variance in the training rows. Dividing
    each feature by its own standard deviation would undo the whitening of exported features; where images are
    few, that would enlarge directions that hold hardly more than rounding errors.

    The sweep goes from strong regularisation to weak and ends after PATIENCE accuracies in a row below the
    best. The test images are scored once, with the chosen strength.

    Args:
        features, labels: [N, F], int [N]. test_features, test_labels: [M, F], int [M].
        strengths: inverse L2 penalties to choose from, each above 0, in any order.
        seed: seed of the choice of validation images.

    Raises:
        UserError: too few training images to hold some of each of two classes out.
    """
    train, held_out = _validation_split(labels, seed)
    model, validation = _Regression(features[train], labels[train]), {}
    for strength in progress.bar(sorted(strengths), "logistic regression", unit="fit"):
        model.fit(strength)
        validation[strength] = model.accuracy(features[held_out], labels[held_out])
        if max(list(validation.values())[-PATIENCE:]) < max(validation.values()):
            break  # weaker regularisation takes longer, and overfits more
    chosen = max(validation, key=validation.__getitem__)
    final = _Regression(features, labels)
    converged = final.fit(chosen)
    return Probe(validation, chosen, final.accuracy(test_features, test_labels), len(held_out), converged)


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
    """A linear classifier by LARS or SGD on features that are not scaled.

    Args:
        features, labels, test_features, test_labels: as for `logistic_probe`.
        optimizer_name: "lars" or "sgd".
        rates: learning rates for batches of 256 to choose from; `RATES[optimizer_name]` when None.
        epochs: passes over the training rows.
        seed: seed of the choice of validation images, the initial weights and the order of rows.

    Raises:
        UserError: as `logistic_probe`.
    """
    train, held_out = _validation_split(labels, seed)
    rates = sorted(RATES[optimizer_name] if rates is None else rates)
    heads = train_heads(features, labels, train, rates, optimizer_name, epochs, seed)
    validation = {r: h.accuracy(features, labels, held_out) for r, h in zip(rates, heads, strict=True)}
    chosen = max(validation, key=validation.__getitem__)
    (head,) = train_heads(features, labels, np.arange(len(labels)), [chosen], optimizer_name, epochs, seed)
    return Probe(validation, chosen, head.accuracy(test_features, test_labels), len(held_out))


def _validation_split(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids of the images to train on, ids of those to validate on), all of them training images."""
    held_out = balanced(labels, VALIDATION_SHARE, seed)
    train = np.setdiff1d(np.arange(len(labels)), held_out)
    if len(np.unique(labels[train])) < 2:
        raise UserError(
            f"{counted(len(labels), 'labelled training image')}: too few, since a classifier needs two "
            "classes of at least two images, of which one chooses its settings. Pass more labels."
        )
    return train, held_out


class _Regression:
    """Centring and scaling, then logistic regression; a fit starts from the weights of the previous one."""

    def __init__(self, features: np.ndarray, labels: np.ndarray) -> None:
        from sklearn.linear_model import LogisticRegression

        features = np.asarray(features, np.float64)
        self._mean, self._labels = features.mean(axis=0), labels
        self._scale = float(np.sqrt(features.var(axis=0).mean())) or 1.0
        self._features = self._scaled(features)
        self._model = LogisticRegression(max_iter=ITERATIONS, warm_start=True, tol=1e-6)

    def fit(self, strength: float) -> bool:
        """Fits with an inverse L2 penalty; returns whether it converged."""
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            self._model.set_params(C=strength).fit(self._features, self._labels)
        return not any(issubclass(w.category, ConvergenceWarning) for w in caught)

    def _scaled(self, features: np.ndarray) -> np.ndarray:
        return (np.asarray(features, np.float64) - self._mean) / self._scale

    def accuracy(self, features: np.ndarray, labels: np.ndarray) -> float:
        return float(self._model.score(self._scaled(features), labels))


@dataclasses.dataclass(frozen=True)
class LinearHead:
    """logits = features · kernel + bias; kernel [F, classes], bias [classes]."""

    kernel: np.ndarray
    bias: np.ndarray

    def accuracy(self, features: np.ndarray, labels: np.ndarray, ids: np.ndarray | None = None) -> float:
        """Accuracy in [0, 1] on the rows `ids`; on all rows when None."""
        ids = np.arange(len(labels)) if ids is None else ids
        right = 0
        for start in range(0, len(ids), BLOCK):
            rows = ids[start : start + BLOCK]
            logits = np.asarray(features[rows]) @ self.kernel + self.bias
            right += int((logits.argmax(axis=1) == labels[rows]).sum())
        return right / len(ids)


def train_heads(
    features: np.ndarray,
    labels: np.ndarray,
    ids: np.ndarray,
    rates: Sequence[float],
    optimizer_name: str = "lars",
    epochs: float = 90.0,
    seed: int = 0,
) -> list[LinearHead]:
    """One head for every rate, all trained on the same batches; each rate decays on a cosine (Sec. 3).

    Kernels start normal with standard deviation 0.01, biases at zero; momentum is 0.9, weight decay 0.

    Args:
        features, labels, ids: [N, F], int [N]; only the rows `ids` are trained on.
        rates: learning rates, for batches of `BATCH`.
        optimizer_name: a key of `OPTIMIZERS`.
        epochs: passes over the rows `ids`.
        seed: seed of the initial weights and of the order of rows.
    """
    classes, width = 1 + int(labels.max()), features.shape[1]
    batch = min(BATCH, len(ids))
    steps = sampling.steps_in(epochs, len(ids), batch)
    start = np.random.default_rng(seed).normal(0.0, 0.01, (width, classes)).astype(np.float32)
    kernels = [keras.Variable(start, name=f"kernel_{i}_") for i in range(len(rates))]
    biases = [keras.Variable(np.zeros(classes, np.float32), name=f"bias_{i}_") for i in range(len(rates))]
    part_learning_rates = {str(i): schedules.cosine(rate, steps) for i, rate in enumerate(rates)}
    optimizer = OPTIMIZERS[optimizer_name](
        schedules.cosine(1.0, steps), momentum=0.9, part_learning_rates=part_learning_rates
    )
    variables = [*kernels, *biases]
    optimizer.build(variables, {str(i): pair for i, pair in enumerate(zip(kernels, biases, strict=True))})

    @tf.function(autograph=False)
    def update(x: tf.Tensor, y: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            losses = [
                tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, x @ k.value + b.value))
                for k, b in zip(kernels, biases, strict=True)
            ]
            loss = tf.add_n(losses)  # the gradient of each head is that of its own loss
        optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)

    order = tf.function(lambda step: sampling.example_ids(seed, step, batch, len(ids)), autograph=False)
    for step in progress.bar(range(steps), f"{len(rates)} heads by {optimizer_name}", unit="step"):
        rows = ids[order(tf.constant(step, tf.int64)).numpy()]
        update(tf.constant(features[rows]), tf.constant(labels[rows], tf.int64))
    return [LinearHead(k.numpy(), b.numpy()) for k, b in zip(kernels, biases, strict=True)]
