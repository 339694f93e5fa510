"""HEADS: layers to train on backbone features, a row for each with its loss and its metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class HeadSpec:
    """A row of `HEADS`: a layer on features [B, F], trained and evaluated by the targets of a batch.

    build: number of outputs K → a layer that gives float32 [B, K].
    loss: (targets [B, …], outputs [B, K]) → scalar, the batch mean.
    metric: (targets, outputs) → float32 [B]; its mean is recorded in training as `metric_name`.
    test_metrics: name → the same as `metric`, in NumPy, for test images; the first is shown during a run.
    always_one: name of a test metric → number of outputs up to which it is 1, and left out.
    """

    build: Callable[[int], keras.layers.Layer]
    loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    metric: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    metric_name: str
    test_metrics: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]
    always_one: Mapping[str, int] = dataclasses.field(default_factory=dict)


def linear(outputs: int) -> keras.layers.Layer:
    """A linear layer; its kernel starts normal with standard deviation 0.01, its biases at zero."""
    normal: Any = keras.initializers.RandomNormal(stddev=0.01)
    return keras.layers.Dense(outputs, kernel_initializer=normal, dtype="float32", name="head")


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Mean cross-entropy of int labels [B] and logits [B, classes]."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


def hits(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """1 where the label has the largest logit, else 0: float32 [B]."""
    return tf.cast(tf.argmax(logits, axis=1) == labels, tf.float32)


def top(k: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """(labels [n], logits [n, classes]) → whether fewer than k logits of other classes reach the label's.

    Among equal logits the label's counts as the last, so that a constant classifier scores 0. A logit that is
    not a number reaches every other.
    """

    def within(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
        at_label = logits[np.arange(len(labels)), labels][:, None]
        return ~np.isnan(at_label[:, 0]) & ((~(logits < at_label)).sum(axis=1) <= k)

    return within


HEADS = {
    "linear": HeadSpec(
        linear, cross_entropy, hits, "accuracy", {"top1": top(1), "top5": top(5)}, {"top5": 5}
    ),
}
