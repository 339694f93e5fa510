"""Pre-training and supervised training: a configuration becomes a task for the loop."""

from simsiam_tf.training import pretraining, supervised

__all__ = ["pretraining", "supervised"]
