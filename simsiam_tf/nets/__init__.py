"""Backbones and heads."""

from simsiam_tf.nets.batch_norm import BatchNorm
from simsiam_tf.nets.heads import BN_PLACEMENT, PREDICTOR, Placement, predictor, projector
from simsiam_tf.nets.resnet import (
    BACKBONES,
    STEMS,
    Conv,
    resnet,
    resnet10,
    resnet18,
    resnet34,
    resnet50,
)

__all__ = [
    "BACKBONES", "BN_PLACEMENT", "PREDICTOR", "STEMS", "BatchNorm", "Conv", "Placement",
    "predictor", "projector", "resnet", "resnet10", "resnet18", "resnet34", "resnet50",
]  # fmt: skip
