"""Configurations: frozen dataclasses whose fields are the options of a command; flags are made from them."""

from simsiam_tf.config.evaluation import ImagesConfig, KeptFeaturesConfig, LabelledConfig, WeightsConfig
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
from simsiam_tf.config.methods import METHODS, Method, loss_kind, method_of
from simsiam_tf.config.places import absolute_places, is_encoded, is_file
from simsiam_tf.config.pretrain import PretrainConfig
from simsiam_tf.config.run import RunConfig
from simsiam_tf.config.supervised import FinetuneConfig, LinearConfig, SupervisedConfig

__all__ = [
    "LOOKS", "METHODS", "Config", "FinetuneConfig", "ImagesConfig", "Inapplicable",
    "KeptFeaturesConfig", "LabelledConfig", "LinearConfig", "Method", "PretrainConfig", "RunConfig",
    "SourceConfig", "SupervisedConfig", "WeightsConfig", "absolute_places", "check_address", "default",
    "differences", "drop_inapplicable", "field_types", "is_encoded", "is_file", "loss_kind", "method_of",
    "option", "to_flags",
]  # fmt: skip
