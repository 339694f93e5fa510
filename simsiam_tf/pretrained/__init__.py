"""Pre-trained backbones: files, cards, weights of PyTorch."""

from simsiam_tf.pretrained.pretrained_backbone import Pretrained, open_pretrained

__all__ = ["Pretrained", "open_pretrained"]
