"""Names what is wrong with a run, from its loss, its std and its rank (Sec. 4.1, Table 1, Table 3)."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np

# Limits on std·√d and on the loss of Eq. 1. Healthy runs have std·√d near 1 (Fig. 2).
COLLAPSED_STD = 0.1
# With BN on the projector's output a collapse first runs onto a line: one direction is left, and
# the std shrinks for long before it is near 0.
LINE_RANK, LINE_STD = 1.5, 0.8
# Or other images come as near to an image as its other view is: their mean cosine is 1 − (std·√d)².
NEAR_STD = 0.4
LOW_RANK = 1 / 3  # of the run's own peak
SETTLED, SETTLED_STEPS = 0.3, 100  # share of a run, and steps, after which its loss should have moved
SEEN = 300  # records that a judgement rests on, so that it takes no longer late in a long run
SPREAD_OUT = 0.9  # std of a z that is spread, though not by image where the loss stays high


@dataclasses.dataclass(frozen=True)
class Limits:
    """What tells of a kind of loss; the last three are of losses whose least value is known.

    learned: fall of the loss that counts as learning. spread: std of the loss between steps that counts
    as unrest. high, flat: the cosine loss of healthy runs ends below −0.8. One that stays above `high`,
    and fell by less than `flat` from the middle third of its records to the last, does not get there,
    whatever it fell by at the start. near: a loss by which views are one embedding.
    """

    learned: float
    spread: float
    high: float | None = None
    flat: float = -math.inf
    near: float = -math.inf


LIMITS = {
    "cosine": Limits(learned=0.2, spread=0.1, high=-0.5, flat=0.1, near=-0.9),
    "distance": Limits(learned=0.8, spread=0.4, high=2.0, flat=0.4, near=0.4),  # BYOL's, 4 + 4 · cosine's
    "cross_entropy": Limits(learned=0.02, spread=0.5),
    "contrast": Limits(learned=0.1, spread=0.5),
}


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """name: one of `ADVICE`. reason: the figures that led to it. kind: of loss, as in `diagnose`.

    alike: whether images that are nearly alike would give such figures.
    """

    name: str
    reason: str
    kind: str = "cosine"
    alike: bool = False

    @property
    def healthy(self) -> bool:
        return self.name == "healthy"

    @property
    def advice(self) -> str:
        advice = (OF_CONTRAST if self.kind == "contrast" else {}).get(self.name, ADVICE[self.name])
        return ALIKE * self.alike + advice

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}. {self.advice}".strip()


ALIKE = "The images may be nearly alike: `preview` shows some. "
ADVICE = {
    "healthy": "",
    "collapse": "Every image gets the same embedding. Check stop_gradient=true, a trained predictor "
    "(predictor=trained) and BN in the heads (bn=default); then try a lower `base_lr`.",
    "partial collapse": "The embedding loses dimensions. Try a lower `base_lr`, a wider `d`, stronger "
    "augmentation (crop_area=0.2) or less `weight_decay`.",
    "non-convergence": "The loss stays high. A fixed predictor does this (predictor=fixed, Table 1 b); "
    "otherwise try a higher `base_lr`, `warmup_epochs`, and BN on the hidden layers (bn=default).",
    "oscillation": "Try bn=default (BN on the predictor's output does this, Table 3 d), a lower "
    "`base_lr`, or warmup_epochs=10.",
    "divergence": "The loss is not a number. Try a lower `base_lr`, warmup_epochs=10, or "
    "precision=float32; the last checkpoint is untouched.",
}

OF_CONTRAST = {  # where it differs: simclr, moco, swav
    "collapse": "Every image gets nearly the same embedding. Try another `base_lr` or `temperature`, more "
    "images to tell apart (`batch_size`, `queue`), or warmup_epochs=10.",
    "non-convergence": "The loss stays high. Try another `base_lr`, a higher `temperature`, or "
    "`warmup_epochs`.",
    "oscillation": "Try a lower `base_lr`, or warmup_epochs=10.",
    "divergence": "The loss is not a number. swav without stop-gradient does this (Sec. 6.2); otherwise try "
    "a lower `base_lr`, warmup_epochs=10, or precision=float32; the last checkpoint is untouched.",
}


def diagnose(records: Sequence[dict], total_steps: int, kind: str = "cosine") -> Diagnosis:
    """The state of a run from its records, oldest first.

    Args:
        records: each with "step", "loss", "loss_spread" (std over the record's steps), "std"
            (std of z/‖z‖ times √d) and "rank" (effective rank).
        total_steps: length of the run; some calls are too early to make.
        kind: of loss, a key of `LIMITS`.

    Collapse is called on three records in a row, since a healthy run may dip once: std·√d below
    0.1, or below 0.4 where the loss is near its least, or embeddings on a line (rank below 1.5) whose
    std shrinks (below 0.8) while views agree. Of more than `SEEN` records, the trends are those of every
    second, third … one.
    """
    found, limits = functools.partial(Diagnosis, kind=kind), LIMITS[kind]
    if not records:
        return found("healthy", "no record yet")
    last = records[-1]
    if not (math.isfinite(last["loss"]) and math.isfinite(last["std"])):
        return found("divergence", f"loss {last['loss']} at step {last['step']}")
    recent = records[-3:]
    point = all(r["std"] < COLLAPSED_STD for r in recent)
    # A fixed predictor has a line, too, but no views that agree.
    agree = limits.high is None or all(r["loss"] < limits.high for r in recent)
    line = agree and all(r["rank"] < LINE_RANK and r["std"] < LINE_STD for r in recent)
    near = all(r["std"] < NEAR_STD and r["loss"] < limits.near for r in recent)
    if len(recent) == 3 and (point or line or near):
        return found("collapse", _figures(last), alike=records[0]["loss"] < limits.near)
    if last["step"] < max(SETTLED * total_steps, SETTLED_STEPS) or len(records) < 4:
        return found("healthy", _figures(last))
    seen = records[:: -(-len(records) // SEEN)]
    third = max(3, len(seen) // 3)
    before, tail = seen[-2 * third : -third], seen[-third:]
    spread = float(np.median([r["loss_spread"] for r in tail]))
    if spread > limits.spread:
        return found("oscillation", f"the loss varies by {spread:.2f} from step to step")
    loss, middle = (float(np.median([r["loss"] for r in part])) for part in (tail, before))
    high = limits.high is None or loss > limits.high
    if high and (middle - loss < limits.flat or records[0]["loss"] - loss < limits.learned):
        return found(
            "non-convergence",
            f"loss {loss:.3f}, {middle:.3f} before that and {records[0]['loss']:.3f} at the start, with "
            f"std·√d {last['std']:.2f}",
            alike=last["std"] > SPREAD_OUT,
        )
    rank = float(np.median([r["rank"] for r in tail]))
    peak = max((r["rank"] for r in seen if r["std"] >= COLLAPSED_STD), default=0.0)
    if rank < LOW_RANK * peak:
        return found("partial collapse", f"effective rank {rank:.1f}, {peak:.1f} at its peak")
    return found("healthy", _figures(last))


def _figures(last: dict) -> str:
    return f"loss {last['loss']:.3f}, std·√d {last['std']:.2f}, effective rank {last['rank']:.1f}"
