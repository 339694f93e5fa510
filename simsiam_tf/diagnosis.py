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
LOW_RANK = 1 / 3  # of the run's own peak
SETTLED, SETTLED_STEPS = 0.3, 100  # share of a run, and steps, after which its loss should have moved
# fall of the loss that counts as learning
LEARNED = {"cosine": 0.2, "cross_entropy": 0.02, "distance": 0.8, "contrast": 0.1}
# std of the loss between steps that counts as unrest
SPREAD = {"cosine": 0.1, "cross_entropy": 0.5, "distance": 0.4, "contrast": 0.5}
# A loss below this one is no non-convergence; kinds without an entry have none.
LOW = {"cosine": -0.5, "distance": 2.0}


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """name: one of `ADVICE`; reason: the figures that led to it; kind: of loss, as in `diagnose`."""

    name: str
    reason: str
    kind: str = "cosine"

    @property
    def healthy(self) -> bool:
        return self.name == "healthy"

    @property
    def advice(self) -> str:
        return (OF_CONTRAST if self.kind == "contrast" else {}).get(self.name, ADVICE[self.name])

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}. {self.advice}".strip()


ADVICE = {
    "healthy": "",
    "collapse": "Every image gets the same embedding. Check --stop_gradient=true, a trained predictor "
    "(--predictor=trained) and BN in the heads (--bn=default); then try a lower --base_lr.",
    "partial collapse": "The embedding loses dimensions. Try a lower --base_lr, a wider --d, stronger "
    "augmentation (--crop_area=0.2) or less --weight_decay.",
    "non-convergence": "The loss does not fall. A fixed predictor does this (--predictor=fixed, Table 1 b); "
    "otherwise try a higher --base_lr, --warmup_epochs, and BN on the hidden layers (--bn=default).",
    "oscillation": "Try --bn=default (BN on the predictor's output does this, Table 3 d), a lower "
    "--base_lr, or --warmup_epochs=10.",
    "divergence": "The loss is not a number. Try a lower --base_lr, --warmup_epochs=10, or "
    "--precision=float32; the last checkpoint is untouched.",
}

OF_CONTRAST = {  # where it differs: simclr, moco, swav
    "collapse": "Every image gets nearly the same embedding. Try another --base_lr or --temperature, more "
    "images to tell apart (--batch_size, --queue), or --warmup_epochs=10.",
    "non-convergence": "The loss does not fall. Try another --base_lr, a higher --temperature, or "
    "--warmup_epochs.",
    "oscillation": "Try a lower --base_lr, or --warmup_epochs=10.",
    "divergence": "The loss is not a number. swav without stop-gradient does this (Sec. 6.2); otherwise try "
    "a lower --base_lr, --warmup_epochs=10, or --precision=float32; the last checkpoint is untouched.",
}


def diagnose(records: Sequence[dict], total_steps: int, kind: str = "cosine") -> Diagnosis:
    """The state of a run from its records, oldest first.

    Args:
        records: each with "step", "loss", "loss_spread" (std over the record's steps), "std"
            (std of z/‖z‖ times √d) and "rank" (effective rank).
        total_steps: length of the run; some calls are too early to make.
        kind: of loss: "cosine", "cross_entropy", "distance" (BYOL's: 4 + 4 times the cosine's) or "contrast".

    Collapse is called on three records in a row, since a healthy run may dip once: std·√d below
    0.1, or embeddings on a line (rank below 1.5) whose std shrinks (below 0.8).
    """
    found = functools.partial(Diagnosis, kind=kind)
    if not records:
        return found("healthy", "no record yet")
    last = records[-1]
    if not (math.isfinite(last["loss"]) and math.isfinite(last["std"])):
        return found("divergence", f"loss {last['loss']} at step {last['step']}")
    recent = records[-3:]
    point = all(r["std"] < COLLAPSED_STD for r in recent)
    line = all(r["rank"] < LINE_RANK and r["std"] < LINE_STD for r in recent)
    if len(recent) == 3 and (point or line):
        return found("collapse", _figures(last))
    if last["step"] < max(SETTLED * total_steps, SETTLED_STEPS) or len(records) < 4:
        return found("healthy", _figures(last))
    tail = records[-max(3, len(records) // 3) :]
    spread = float(np.median([r["loss_spread"] for r in tail]))
    if spread > SPREAD[kind]:
        return found("oscillation", f"the loss varies by {spread:.2f} from step to step")
    loss = float(np.median([r["loss"] for r in tail]))
    if records[0]["loss"] - loss < LEARNED[kind] and loss > LOW.get(kind, -math.inf):
        return found(
            "non-convergence",
            f"loss {loss:.3f}, {records[0]['loss']:.3f} at the start, with std·√d {last['std']:.2f}",
        )
    ranks = [r["rank"] for r in records]
    rank, peak = float(np.median([r["rank"] for r in tail])), max(ranks)
    if rank < LOW_RANK * peak:
        return found("partial collapse", f"effective rank {rank:.1f}, {peak:.1f} at its peak")
    return found("healthy", _figures(last))


def _figures(last: dict) -> str:
    return f"loss {last['loss']:.3f}, std·√d {last['std']:.2f}, effective rank {last['rank']:.1f}"
