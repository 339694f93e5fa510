"""Weights to and from PyTorch."""

from simsiam_tf.conversion.backbones import Converted, from_torch, to_torch
from simsiam_tf.conversion.files import needs, open_checkpoint, read, write
from simsiam_tf.conversion.layouts import LAYOUTS, detect
from simsiam_tf.conversion.whole import to_file, to_folder

__all__ = [
    "LAYOUTS", "Converted", "detect", "from_torch", "needs", "open_checkpoint", "read",
    "to_file", "to_folder", "to_torch", "write",
]  # fmt: skip
