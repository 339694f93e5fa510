"""Self-supervised methods: each is a Keras model, trained by a loss of several views of an image."""

from simsiam_tf.distributed.strategies import all_gather
from simsiam_tf.methods.alternation import Alternation
from simsiam_tf.methods.barlow import BarlowTwins
from simsiam_tf.methods.base import STOP, SiameseModel, ViewModel
from simsiam_tf.methods.byol import BYOL
from simsiam_tf.methods.distill import Distill
from simsiam_tf.methods.moco import MoCo
from simsiam_tf.methods.moving_average import MovingAverage
from simsiam_tf.methods.run_size import RunSize
from simsiam_tf.methods.simclr import SimCLR
from simsiam_tf.methods.simsiam import SimSiam
from simsiam_tf.methods.swav import SwAV
from simsiam_tf.methods.vicreg import VICReg

__all__ = [
    "BYOL", "STOP", "Alternation", "BarlowTwins", "Distill", "MoCo", "MovingAverage", "RunSize",
    "SiameseModel", "SimCLR", "SimSiam", "SwAV", "VICReg", "ViewModel", "all_gather",
]  # fmt: skip
