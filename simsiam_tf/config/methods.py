"""METHODS: a row for every method. Other code reads these rows instead of asking for a method's name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from simsiam_tf.config.fields import Inapplicable
from simsiam_tf.config.method_options import (
    BarlowOptions,
    DistillOptions,
    MethodOptions,
    MoCoOptions,
    SimCLROptions,
    SimSiamOptions,
    SwAVOptions,
    TargetMomentumOptions,
    VICRegOptions,
)
from simsiam_tf.runtime.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class Method:
    """SimSiam, a method that Table 4 compares it with, or a later one.

    title, source: its name in print, and where it is described.
    model: "module:Class" of its model (`methods.SiameseModel`), loaded when a model is built.
    options: the dataclass of its options.
    defaults: values for options that are "auto" or None.
    variants: option → "module:Class" of the model where that option is not None.
    loss: key of `diagnosis.LIMITS`; None: the option `similarity` is the key.
    d: whether z has the width d; else the model has a width of its own.
    lars: arguments with which `optimizers.LARS` computes what the code of the method's authors does.
    """

    title: str
    source: str
    model: str
    options: type[MethodOptions]
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    variants: Mapping[str, str] = dataclasses.field(default_factory=dict)
    loss: str | None = "contrast"
    d: bool = True
    lars: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"exclude_1d": True})


_CODE_LARS = {"exclude_1d": True, "decayed_slope": True}  # in the code of SimCLR, BYOL, VICReg, Barlow Twins

METHODS = {
    "simsiam": Method(
        "SimSiam", "Chen & He, arXiv 2011.10566", "simsiam_tf.methods.simsiam:SimSiam", SimSiamOptions,
        {"predictor": "trained", "stop_gradient": True},
        {"alternate": "simsiam_tf.methods.alternation:Alternation",
         "average": "simsiam_tf.methods.moving_average:MovingAverage"},
        loss=None,
    ),
    "simclr": Method(
        "SimCLR", "Chen et al., arXiv 2002.05709", "simsiam_tf.methods.simclr:SimCLR", SimCLROptions,
        {"predictor": "none", "stop_gradient": False, "temperature": 0.1}, lars=_CODE_LARS,
    ),
    "moco": Method(
        "MoCo v2", "Chen et al., arXiv 2003.04297", "simsiam_tf.methods.moco:MoCo", MoCoOptions,
        {"predictor": "none", "temperature": 0.2, "target_momentum": 0.999},
    ),
    "byol": Method(
        "BYOL", "Grill et al., arXiv 2006.07733", "simsiam_tf.methods.byol:BYOL", TargetMomentumOptions,
        {"predictor": "trained", "target_momentum": 0.996}, loss="distance", lars=_CODE_LARS,
    ),
    "swav": Method(
        "SwAV", "Caron et al., arXiv 2006.09882", "simsiam_tf.methods.swav:SwAV", SwAVOptions,
        {"predictor": "none", "stop_gradient": True, "temperature": 0.1}, lars={},
    ),
    "vicreg": Method(
        "VICReg", "Bardes et al., arXiv 2105.04906", "simsiam_tf.methods.vicreg:VICReg", VICRegOptions,
        {"predictor": "none"}, loss="redundancy", lars=_CODE_LARS,
    ),
    "barlow": Method(
        "Barlow Twins", "Zbontar et al., arXiv 2103.03230", "simsiam_tf.methods.barlow:BarlowTwins",
        BarlowOptions, {"predictor": "none"}, loss="redundancy", lars=_CODE_LARS,
    ),
    "distill": Method(
        "Distillation", "SimReg, Navaneet et al., arXiv 2201.05131", "simsiam_tf.methods.distill:Distill",
        DistillOptions, {"predictor": "none", "teacher_pixels": "auto"}, loss="regression", d=False,
    ),
}  # fmt: skip


PY_METHOD = "py:MODULE:CLASS"  # a value of `method` that names a class of the user's


def method_row(name: str) -> Method:
    """The row of a value of `method`: of METHODS, or one made for a class of the user's, py:MODULE:CLASS.

    The options d, projector_hidden and projector_layers are arguments of such a class. Its loss has limits of
    its own, "other": only a collapse or NaN is diagnosed. Raises UserError where `name` names no method.
    """
    if name in METHODS:
        return METHODS[name]
    if not re.fullmatch(r"py:[\w.]+:\w+", name):
        hint = f" Pass method={PY_METHOD}." if name.startswith("py:") else nearest(name, METHODS)
        raise UserError(f"method={name}: no such value.{hint}")
    path = name.removeprefix("py:")
    title = path.rpartition(":")[2]
    return Method(title, f"the class {path}", path, MethodOptions, {"predictor": "none"}, loss="other")


def method_of(configuration: Mapping[str, Any]) -> Method:
    """The method that a configuration names; SimSiam where it names none that is known."""
    try:
        return method_row(str(configuration.get("method")))
    except UserError:
        return METHODS["simsiam"]


def loss_kind(configuration: Mapping[str, Any]) -> str:
    """Key of `diagnosis.LIMITS` for a configuration, such as "cosine" or "contrast"."""
    return method_of(configuration).loss or configuration.get("similarity", "cosine")


def with_method_defaults(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a configuration, with the method's defaults for those that are None or "auto"."""
    row = method_of(configuration)
    filled = {n: v for n, v in row.defaults.items() if configuration.get(n) in (None, "auto")}
    own = {field.name for field in dataclasses.fields(row.options)}
    others = {field.name for other in METHODS.values() for field in dataclasses.fields(other.options)} - own
    return {name: value for name, value in {**configuration, **filled}.items() if name not in others}


Class = TypeVar("Class", bound=type)


def add_method_options(cls: Class) -> Class:
    """Adds the options of all methods to a configuration that is not yet a dataclass, after `method`.

    An option is inapplicable to the methods that do not have it.
    """
    options = {field.name: field for row in METHODS.values() for field in dataclasses.fields(row.options)}
    names = [*cls.__annotations__]
    after = names.index("method") + 1
    types = cls.__annotations__ | {name: field.type for name, field in options.items()}
    cls.__annotations__ = {name: types[name] for name in (*names[:after], *options, *names[after:])}
    for name, field in options.items():
        setattr(cls, name, dataclasses.field(default=field.default, metadata=field.metadata))
        users = [method for method, row in METHODS.items() if hasattr(row.options, name)]
        others = f"a `method` other than {' and '.join(users)}"
        rule = Inapplicable((name,), "method", lambda v, users=users: v not in users, others)
        cls.INAPPLICABLE = (*cls.INAPPLICABLE, rule)
    return cls
