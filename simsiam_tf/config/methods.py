"""What each method has where a flag does not say otherwise: SimSiam and the methods of Sec. 6."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of Table 4 or its baseline.

    title, source: its name in print, and where it is described.
    predictor, stop_gradient, temperature, target_momentum: defaults of the flags; None for no such thing.
    loss: what kind it is of, a key of `diagnosis.LIMITS`; None for that of `similarity`.
    lars: arguments of `optim.LARS` by which it computes what the method's own code does.
    """

    title: str
    source: str
    predictor: str = "none"
    stop_gradient: bool = True
    temperature: float | None = None
    target_momentum: float | None = None
    loss: str | None = "contrast"
    lars: Mapping[str, bool] = dataclasses.field(default_factory=lambda: {"exclude_1d": True})


_THEIR_LARS = {"exclude_1d": True, "decayed_slope": True}  # SimCLR's and BYOL's

METHODS = {
    "simsiam": Method("SimSiam", "Chen & He, arXiv 2011.10566", predictor="trained", loss=None),
    "simclr": Method(
        "SimCLR", "Chen et al., arXiv 2002.05709", stop_gradient=False, temperature=0.1, lars=_THEIR_LARS
    ),
    "moco": Method("MoCo v2", "Chen et al., arXiv 2003.04297", temperature=0.2, target_momentum=0.999),
    "byol": Method(
        "BYOL",
        "Grill et al., arXiv 2006.07733",
        predictor="trained",
        target_momentum=0.996,
        loss="distance",
        lars=_THEIR_LARS,
    ),
    "swav": Method("SwAV", "Caron et al., arXiv 2006.09882", temperature=0.1, lars={}),
}


def method_of(configuration: Mapping[str, Any]) -> Method:
    """The method of a run, by what its work folder or card says of it."""
    name = configuration.get("method")
    return METHODS[name if isinstance(name, str) and name in METHODS else "simsiam"]


def loss_kind(configuration: Mapping[str, Any]) -> str:
    """What kind of loss a run has: "cosine", "cross_entropy", "distance" or "contrast"."""
    return method_of(configuration).loss or configuration.get("similarity", "cosine")


READ_BY = {  # flags that some methods only have
    **dict.fromkeys(("bn", "output_affine", "similarity", "symmetry", "alternate", "average"), ("simsiam",)),
    **dict.fromkeys(("predictor", "stop_gradient"), ("simsiam", "simclr", "swav")),
    "temperature": ("simclr", "moco", "swav"),
    "target_momentum": ("moco", "byol"),
    **dict.fromkeys(("queue", "key_groups"), ("moco",)),
    **dict.fromkeys(("prototypes", "sinkhorn_epsilon", "frozen_prototypes", "prototype_norm"), ("swav",)),
}
NO_EFFECT = [
    (
        (flag,),
        "method",
        lambda value, methods=methods: value not in methods,
        f"a `method` other than {' and '.join(methods)}",
    )
    for flag, methods in READ_BY.items()
]
