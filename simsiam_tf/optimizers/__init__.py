"""Update rules and learning-rate schedules, as the paper's experiments use them."""

from simsiam_tf.optimizers.sgd_lars import LARS, SGD

__all__ = ["LARS", "SGD"]
