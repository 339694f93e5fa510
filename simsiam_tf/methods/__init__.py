"""Self-supervised methods: each turns views into an objective."""

from simsiam_tf.methods.base import SiameseModel, ViewModel
from simsiam_tf.methods.simsiam import SYMMETRY, SimSiam

__all__ = ["SYMMETRY", "SiameseModel", "SimSiam", "ViewModel"]
