"""Optimizers and learning-rate schedules of the paper's experiments."""

from simsiam_tf.optimizers.sgd_lars import LARS, SGD

__all__ = ["LARS", "SGD"]
