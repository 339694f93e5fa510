"""Configurations: frozen dataclasses whose fields are the options of a command; flags are made from them."""

from simsiam_tf.config.evaluation import FeaturesConfig, ImagesConfig, KeptFeaturesConfig, WeightsConfig
from simsiam_tf.config.fields import (
    LOOKS,
    Config,
    Inapplicable,
    check_address,
    default,
    differences,
    drop_inapplicable,
    field_types,
    option,
    to_flags,
)
from simsiam_tf.config.images import SourceConfig
from simsiam_tf.config.methods import METHODS, Method, loss_kind, method_of, method_row, with_method_defaults
from simsiam_tf.config.places import absolute_places, is_encoded, is_file
from simsiam_tf.config.pretrain import PretrainConfig
from simsiam_tf.config.supervised import FinetuneConfig, LinearConfig, SupervisedConfig
from simsiam_tf.config.transfer import TransferConfig

__all__ = [
    "LOOKS", "METHODS", "Config", "FeaturesConfig", "FinetuneConfig", "ImagesConfig", "Inapplicable",
    "KeptFeaturesConfig", "LinearConfig", "Method", "PretrainConfig", "SourceConfig", "SupervisedConfig",
    "TransferConfig", "WeightsConfig", "absolute_places", "check_address", "default", "differences",
    "drop_inapplicable", "field_types", "is_encoded", "is_file", "loss_kind", "method_of", "method_row",
    "option", "to_flags", "with_method_defaults",
]  # fmt: skip
