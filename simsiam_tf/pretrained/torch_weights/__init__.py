"""Weights to and from PyTorch."""

from simsiam_tf.pretrained.torch_weights.backbone_layout import Converted, from_torch, to_torch
from simsiam_tf.pretrained.torch_weights.conversion import to_file, to_folder
from simsiam_tf.pretrained.torch_weights.key_names import LAYOUTS, detect
from simsiam_tf.pretrained.torch_weights.torch_files import needs, open_checkpoint, read, write

__all__ = [
    "LAYOUTS", "Converted", "detect", "from_torch", "needs", "open_checkpoint", "read",
    "to_file", "to_folder", "to_torch", "write",
]  # fmt: skip
