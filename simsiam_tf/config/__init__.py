"""Configurations: a frozen dataclass a command, its validation, and the flags made from its fields.

Only this package and the command lines know flags.
"""

from simsiam_tf.config.evaluation import ImagesConfig, KeptFeaturesConfig, LabelledConfig, WeightsConfig
from simsiam_tf.config.fields import (
    FOLDER,
    LOOKS,
    Config,
    check_address,
    check_choices,
    default,
    differences,
    is_folder,
    kinds,
    option,
    overridden,
    to_flags,
)
from simsiam_tf.config.methods import METHODS, Method, loss_kind, method_of
from simsiam_tf.config.pretrain import PretrainConfig
from simsiam_tf.config.run import RunConfig
from simsiam_tf.config.supervised import FinetuneConfig, LinearConfig, SupervisedConfig

__all__ = [
    "FOLDER", "LOOKS", "METHODS", "Config", "FinetuneConfig", "ImagesConfig", "KeptFeaturesConfig",
    "LabelledConfig", "LinearConfig", "Method", "PretrainConfig", "RunConfig", "SupervisedConfig",
    "WeightsConfig", "check_address", "check_choices", "default", "differences", "is_folder", "kinds",
    "loss_kind", "method_of", "option", "overridden", "to_flags",
]  # fmt: skip
