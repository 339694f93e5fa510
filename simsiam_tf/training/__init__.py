"""From a configuration to a run: its components, its model, pre-training and supervised training."""

from simsiam_tf.training import pretraining, supervised

__all__ = ["pretraining", "supervised"]
