"""Names what is wrong with a run, from its loss, its std and its rank (Sec. 4.1, Table 1, Table 3)."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import math
from collections.abc import Sequence

# Limits on std·√d and on the loss of Eq. 1. Healthy runs have std·√d near 1 (Fig. 2).
COLLAPSED_STD = 0.1
# With BN on the projector's output a collapse first runs onto a line: one direction is left, and
# the std shrinks for long before it is near 0.
LINE_RANK, LINE_STD = 1.5, 0.8
LOW_RANK = 1 / 3  # of the run's own peak
SETTLED, SETTLED_STEPS = 0.3, 100  # share of a run, and steps, after which its loss should have moved
LEARNED = {"cosine": 0.2, "cross_entropy": 0.02, "contrast": 0.1}  # fall of the loss that counts as learning
# std of the loss between steps that counts as unrest
SPREAD = {"cosine": 0.1, "cross_entropy": 0.5, "contrast": 0.5}


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
        kind: of loss: "cosine", "cross_entropy" or "contrast".

    Collapse is called on three records in a row, since a healthy run may dip once: std·√d below
    0.1, or embeddings on a line (rank below 1.5) whose std shrinks (below 0.8).
    """
    return Diagnoser(total_steps, kind).of(records)


class Diagnoser:
    """`diagnose` of a run whose records become more, for the cost of those that are new.

    Args:
        total_steps, kind: as there.
    """

    def __init__(self, total_steps: int, kind: str = "cosine") -> None:
        self.total_steps, self.kind = total_steps, kind
        self._known = self._start = 0  # records taken in; the first of the last third of them
        self._peak = -math.inf  # of the rank
        self._sorted: dict[str, list[float]] = {}

    def of(self, records: Sequence[dict]) -> Diagnosis:
        """The state of a run. records: those of the last call, and others after them."""
        found = functools.partial(Diagnosis, kind=self.kind)
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
        if last["step"] < max(SETTLED * self.total_steps, SETTLED_STEPS) or len(records) < 4:
            return found("healthy", _figures(last))
        self._take_in(records)
        spread, loss, rank = (_median(self._sorted[name]) for name in TAIL)
        if spread > SPREAD[self.kind]:
            return found("oscillation", f"the loss varies by {spread:.2f} from step to step")
        first = records[0]["loss"]
        if first - loss < LEARNED[self.kind] and loss > -0.5:
            return found(
                "non-convergence", f"loss {loss:.3f}, {first:.3f} at the start, with std·√d {last['std']:.2f}"
            )
        if rank < LOW_RANK * self._peak:
            return found("partial collapse", f"effective rank {rank:.1f}, {self._peak:.1f} at its peak")
        return found("healthy", _figures(last))

    def _take_in(self, records: Sequence[dict]) -> None:
        """Brings the peak, and the sorted figures of the last third, up to date."""
        known, count = self._known, len(records)
        start = count - max(3, count // 3)
        new = records[known:]
        self._peak = max([self._peak, *(r["rank"] for r in new)])
        for name in TAIL:
            if known <= start:  # none of those that are sorted is wanted any more
                self._sorted[name] = sorted(r[name] for r in records[start:])
                continue
            ranked = self._sorted[name]
            for r in records[self._start : start]:
                del ranked[bisect.bisect_left(ranked, r[name])]
            for r in new:
                bisect.insort(ranked, r[name])
        self._known, self._start = count, start


TAIL = ("loss_spread", "loss", "rank")  # figures whose median over the last third counts


def _median(ranked: list[float]) -> float:
    half = len(ranked) // 2
    return ranked[half] if len(ranked) % 2 else (ranked[half - 1] + ranked[half]) / 2


def _figures(last: dict) -> str:
    return f"loss {last['loss']:.3f}, std·√d {last['std']:.2f}, effective rank {last['rank']:.1f}"
