"""SimSiam in TensorFlow and Keras: the public names, loaded when first used."""

from __future__ import annotations

import importlib
import os

# TensorFlow leaves oneDNN's convolutions off on x86 CPUs without instructions for neural networks (such as
# AVX512_VNNI), where they were measured to halve the time of a step. TensorFlow reads this variable when it
# is first imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__version__ = "0.2.0"

_MODULES = {
    "callbacks": "training.callbacks",
    "curation": "curation",
    "curation_page": "curation_page",
    "data": "data",
    "evaluate": "evaluate",
    "features": "features",
    "html_report": "html_report",
    "losses": "methods.losses",
    "methods": "methods",
    "metrics": "methods.metrics",
    "model_export": "model_export",
    "nets": "nets",
    "optimizers": "optimizers",
    "schedules": "optimizers.schedules",
    "torch_weights": "pretrained.torch_weights",
    "training": "training",
}
_NAMES = {
    "FinetuneConfig": "config",
    "LinearConfig": "config",
    "PretrainConfig": "config",
    "SiameseModel": "methods",
    "SimSiam": "methods",
    "from_pretrained": "pretrained.pretrained_backbone",
    "open_pretrained": "pretrained.pretrained_backbone",
}
__all__ = [*_MODULES, *_NAMES, "__version__"]


def __getattr__(name: str):
    # Lazy, so that commands answer `--help` and refuse invalid flags without loading TensorFlow.
    if name in _MODULES:
        return importlib.import_module(f"simsiam_tf.{_MODULES[name]}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"simsiam_tf.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'simsiam_tf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
