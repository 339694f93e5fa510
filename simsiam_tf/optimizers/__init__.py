"""Optimizers and learning-rate schedules of the paper's experiments, and AdamW, as for transformers."""

from simsiam_tf.optimizers.adamw import AdamW
from simsiam_tf.optimizers.sgd_lars import LARS, SGD
from simsiam_tf.optimizers.variable_rates import VariableRates

__all__ = ["LARS", "SGD", "AdamW", "VariableRates"]
