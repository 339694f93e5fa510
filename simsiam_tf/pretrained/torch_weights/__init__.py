"""Converts weights to and from PyTorch."""

from simsiam_tf.pretrained.torch_layouts import LAYOUTS
from simsiam_tf.pretrained.torch_weights.backbone_layout import Converted, from_torch, to_torch
from simsiam_tf.pretrained.torch_weights.conversion import convert_from_torch, convert_to_torch
from simsiam_tf.pretrained.torch_weights.torch_files import open_checkpoint, require_library, write_weights

__all__ = [
    "LAYOUTS", "Converted", "convert_from_torch", "convert_to_torch", "from_torch", "open_checkpoint",
    "require_library", "to_torch", "write_weights",
]  # fmt: skip
