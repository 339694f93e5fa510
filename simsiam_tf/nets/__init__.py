"""Backbones, heads, and the layers that they are made of."""

from simsiam_tf.config.backbones import BACKBONES
from simsiam_tf.nets.backbones import Description, build_backbone, describe_backbone
from simsiam_tf.nets.batch_norm import BatchNorm, lower_momentum, synchronise, unsettled
from simsiam_tf.nets.conv import Conv
from simsiam_tf.nets.cpu.dispatch import fast_cpu_convolutions
from simsiam_tf.nets.heads import BN_PLACEMENT, PREDICTOR, Placement, predictor, projector
from simsiam_tf.nets.resnet import RESNETS, STEMS, resnet, resnet10, resnet18, resnet34, resnet50, resnet101

__all__ = [
    "BACKBONES", "BN_PLACEMENT", "PREDICTOR", "RESNETS", "STEMS", "BatchNorm", "Conv", "Description",
    "Placement", "build_backbone", "describe_backbone", "fast_cpu_convolutions", "lower_momentum",
    "predictor", "projector",
    "resnet", "resnet10", "resnet18", "resnet34", "resnet50", "resnet101",
    "synchronise", "unsettled",
]  # fmt: skip
