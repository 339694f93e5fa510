"""Linear heads on stored features, trained by SGD or LARS: one head for every learning rate, all at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from simsiam_tf import optimizers
from simsiam_tf.data import sampling
from simsiam_tf.optimizers import schedules
from simsiam_tf.runtime import progress

OPTIMIZERS = {"lars": optimizers.LARS, "sgd": optimizers.SGD}
RATES = {
    "lars": (0.3, 1.0, 3.0, 10.0, 30.0),
    "sgd": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0),
}
BATCH = 256  # the reference batch of the paper, at which base_lr is the learning rate itself
BLOCK = 2**16  # rows scored at a time


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
    """One head for every rate, all trained on the same batches, each on a cosine from its rate (Sec. 3).

    Kernels start at N(0, 0.01), biases at zero; momentum is 0.9, and there is no weight decay.

    Args:
        features, labels: [N, F], int [N].
        ids: int [n], the rows to train on.
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
