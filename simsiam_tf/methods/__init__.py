"""Self-supervised methods: each turns views into an objective."""

from simsiam_tf.methods.alternation import Alternation
from simsiam_tf.methods.base import STOP, SiameseModel, ViewModel
from simsiam_tf.methods.byol import BYOL
from simsiam_tf.methods.moco import MoCo
from simsiam_tf.methods.moving_average import MovingAverage
from simsiam_tf.methods.simclr import SimCLR
from simsiam_tf.methods.simsiam import SYMMETRY, SimSiam
from simsiam_tf.methods.swav import SwAV

__all__ = [
    "BYOL", "STOP", "SYMMETRY", "Alternation", "MoCo", "MovingAverage", "SiameseModel", "SimCLR", "SimSiam",
    "SwAV", "ViewModel",
]  # fmt: skip
