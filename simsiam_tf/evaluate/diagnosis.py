"""Diagnoses a run by its loss and the std and rank of its embeddings (Sec. 4.1, Table 1, Table 3)."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np

# Limits on std·√d, which is near 1 in healthy runs (Fig. 2), and on the effective rank.
COLLAPSED_STD = 0.1
# With BN on the projector's output, a collapse begins on a line: the embeddings keep one direction, and their
# std shrinks slowly towards 0.
LINE_RANK, LINE_STD = 1.5, 0.8
# A third form of collapse: other images are as near to an image as its second view is. The mean cosine
# between images is 1 − (std·√d)².
NEAR_STD = 0.4
LOW_RANK = 1 / 3  # share of the run's highest rank below which a collapse is partial
SETTLED, SETTLED_STEPS = 0.3, 100  # share of a run, and steps, after which the loss should have fallen
MAX_RECORDS = 300  # most records from which trends are read, so that a long run costs no more
SPREAD_OUT = 0.9  # std·√d above which embeddings count as spread out


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits for one type of loss; the last three are for losses whose least value is known.

    fall: least decrease of the loss since the first record that counts as learning. spread: std of the loss
    between steps above which it oscillates. high, flat: a loss above `high` (None: any loss) does not
    converge if it fell by less than `fall` in all, or by less than `flat` from the middle third of the
    records to the last. The cosine loss of healthy runs ends below −0.8. near: a loss below which two views
    have nearly the same embedding.
    """

    fall: float
    spread: float
    high: float | None = None
    flat: float = -math.inf
    near: float = -math.inf


LIMITS = {
    "cosine": Limits(fall=0.2, spread=0.1, high=-0.5, flat=0.1, near=-0.9),
    "distance": Limits(fall=0.8, spread=0.4, high=2.0, flat=0.4, near=0.4),  # BYOL's: 4 + 4 · cosine
    "cross_entropy": Limits(fall=0.02, spread=0.5),
    "contrast": Limits(fall=0.1, spread=0.5),
    "redundancy": Limits(fall=0.1, spread=2.0),  # VICReg and Barlow Twins: 0.02 to 0.2 if healthy
    "regression": Limits(fall=0.1, spread=0.2),  # of distillation: 2 − 2 · cosine
    "other": Limits(fall=-math.inf, spread=math.inf),  # of a method of the user's: nothing is known of it
}


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """A diagnosis of a run.

    name: a key of `ADVICE`. reason: the metrics that led to it; empty before the first record, when nothing
    speaks against "healthy". loss_type: a key of `LIMITS`. alike: whether images that are nearly alike could
    be the cause.
    """

    name: str
    reason: str
    loss_type: str = "cosine"
    alike: bool = False

    @property
    def healthy(self) -> bool:
        return self.name == "healthy"

    @property
    def advice(self) -> str:
        special = SPECIAL_ADVICE.get(self.loss_type, {})
        return ALIKE * self.alike + special.get(self.name, ADVICE[self.name])

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}. {self.advice}".strip() if self.reason else "none: no record yet."


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

_CONTRAST_ADVICE = {  # for simclr, moco and swav
    "collapse": "Every image gets nearly the same embedding. Try another `base_lr` or `temperature`, more "
    "images to tell apart (`batch_size`, `queue`), or warmup_epochs=10.",
    "non-convergence": "The loss stays high. Try another `base_lr`, a higher `temperature`, or "
    "`warmup_epochs`.",
    "oscillation": "Try a lower `base_lr`, or warmup_epochs=10.",
    "divergence": "The loss is not a number. swav without stop-gradient does this (Sec. 6.2); otherwise try "
    "a lower `base_lr`, warmup_epochs=10, or precision=float32; the last checkpoint is untouched.",
}
_REGRESSION_ADVICE = {  # for distill
    "collapse": "Every image gets nearly the same prediction. The teacher's features may be nearly alike "
    "for these images, or `base_lr` too high.",
    "partial collapse": "The predictions lose dimensions. Try a lower `base_lr`, or less `weight_decay`.",
    "non-convergence": "The loss stays high. Try another `base_lr`, weaker views (crop_area=0.5, "
    "jitter=0.2), or a wider or deeper `backbone`.",
    "oscillation": "Try a lower `base_lr`, or warmup_epochs=10.",
    "divergence": "The loss is not a number. Try a lower `base_lr`, warmup_epochs=10, or "
    "precision=float32; the last checkpoint is untouched.",
}
_REDUNDANCY_ADVICE = {  # for vicreg and barlow
    "collapse": "Every image gets nearly the same embedding. Try a lower `base_lr`, warmup_epochs=10, or, "
    "with vicreg, a larger `variance_weight`.",
    "non-convergence": "The loss stays high. Try another `base_lr`, or `warmup_epochs`.",
    "oscillation": "Try a lower `base_lr`, a larger `batch_size`, or warmup_epochs=10.",
}
_OTHER_ADVICE = {  # for methods of the user's
    "collapse": "Every image gets nearly the same embedding. Check what in the loss prevents that; then try "
    "a lower `base_lr`, or warmup_epochs=10.",
}
SPECIAL_ADVICE = {  # key of `LIMITS` → advice that replaces ADVICE of the same name
    "contrast": _CONTRAST_ADVICE, "redundancy": _REDUNDANCY_ADVICE, "regression": _REGRESSION_ADVICE,
    "other": _OTHER_ADVICE,
}  # fmt: skip


def diagnose(records: Sequence[dict], total_steps: int, loss_type: str = "cosine") -> Diagnosis:
    """Diagnoses a run of `total_steps` by its records; loss_type is a key of `LIMITS`.

    A collapse needs three records in a row, since a healthy run may dip once: std·√d below 0.1, or below
    0.4 where the loss is near its least value, or embeddings on a line (rank below 1.5) whose std shrinks
    (below 0.8) while views agree. A divergence needs one record. Other diagnoses are made only after the
    share SETTLED of the run and SETTLED_STEPS steps.

    records: the oldest first, each with "step", "loss", "loss_spread" (std over the record's steps), "std"
        (std of z/‖z‖ times √d) and "rank" (effective rank). Trends are read from at most MAX_RECORDS of
        them, evenly spaced.
    """
    diagnosis, limits = functools.partial(Diagnosis, loss_type=loss_type), LIMITS[loss_type]
    if not records:
        return diagnosis("healthy", "")
    last = records[-1]
    if not (math.isfinite(last["loss"]) and math.isfinite(last["std"])):
        return diagnosis("divergence", f"loss {last['loss']} at step {last['step']}")
    recent = records[-3:]
    point = all(r["std"] < COLLAPSED_STD for r in recent)
    # With a fixed predictor the embeddings lie on a line, too, but those of two views do not agree.
    agree = limits.high is None or all(r["loss"] < limits.high for r in recent)
    line = agree and all(r["rank"] < LINE_RANK and r["std"] < LINE_STD for r in recent)
    near = all(r["std"] < NEAR_STD and r["loss"] < limits.near for r in recent)
    if len(recent) == 3 and (point or line or near):
        return diagnosis("collapse", _metrics_text(last), alike=records[0]["loss"] < limits.near)
    if last["step"] < max(SETTLED * total_steps, SETTLED_STEPS) or len(records) < 4:
        return diagnosis("healthy", _metrics_text(last))
    spaced = records[:: -(-len(records) // MAX_RECORDS)]
    third = max(3, len(spaced) // 3)
    before, tail = spaced[-2 * third : -third], spaced[-third:]
    spread = float(np.median([r["loss_spread"] for r in tail]))
    if spread > limits.spread:
        return diagnosis("oscillation", f"the loss varies by {spread:.2f} from step to step")
    loss, middle = (float(np.median([r["loss"] for r in third])) for third in (tail, before))
    high = limits.high is None or loss > limits.high
    if high and (middle - loss < limits.flat or records[0]["loss"] - loss < limits.fall):
        return diagnosis(
            "non-convergence",
            f"loss {loss:.3f}, {middle:.3f} before that and {records[0]['loss']:.3f} at the start, with "
            f"std·√d {last['std']:.2f}",
            alike=last["std"] > SPREAD_OUT,
        )
    rank = float(np.median([r["rank"] for r in tail]))
    peak = max((r["rank"] for r in spaced if r["std"] >= COLLAPSED_STD), default=0.0)
    if rank < LOW_RANK * peak:
        return diagnosis("partial collapse", f"effective rank {rank:.1f}, {peak:.1f} at its peak")
    return diagnosis("healthy", _metrics_text(last))


def _metrics_text(last: dict) -> str:
    return f"loss {last['loss']:.3f}, std·√d {last['std']:.2f}, effective rank {last['rank']:.1f}"
