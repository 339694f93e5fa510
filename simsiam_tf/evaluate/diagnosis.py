"""Diagnoses a run by its loss and the std and rank of its embeddings (Sec. 4.1, Table 1, Table 3)."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simsiam_tf.evaluate import advice

# Limits on std·√d, which is near 1 in healthy runs (Fig. 2), and on the effective rank.
COLLAPSED_STD = 0.1
# With BN on the projector's output, a collapse begins on a line: the embeddings keep one direction, and their
# std shrinks slowly towards 0.
LINE_RANK, LINE_STD = 1.5, 0.8
# A third form of collapse: other images are as near to an image as its second view is. The mean cosine
# between images is 1 − (std·√d)².
NEAR_STD = 0.4
LOW_RANK = 1 / 3  # share of the run's highest rank below which, as below LINE_RANK, a collapse is partial
SETTLED, SETTLED_STEPS = 0.3, 100  # share of a run, and steps, after which the loss should have fallen
MAX_RECORDS = 300  # most records from which trends are read, so that a long run costs no more
CONSTANT_STD = 0.03  # std·√F of features at inference below which they are nearly constant
SPREAD_OUT = 0.9  # std·√d above which embeddings count as spread out


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits for one type of loss; `high`, `flat` and `near` are for losses whose least value is known.

    spread: std of the loss between steps above which it oscillates.
    fall: least decrease of the loss since the first record that counts as learning.
    high: a loss above it does not converge if it fell by less than `flat` or, without `flat`, by less than
        `fall`; None: any loss. The cosine loss of healthy runs ends below −0.8.
    flat: least decrease of the loss from the middle third of the records to the last.
    near: a loss below which two views have nearly the same embedding.
    """

    spread: float
    fall: float = -math.inf
    high: float | None = None
    flat: float | None = None
    near: float = -math.inf


LIMITS = {
    # With a fixed predictor, or images that are alike, the loss still falls by up to 0.05 between thirds.
    "cosine": Limits(spread=0.1, high=-0.5, flat=0.06, near=-0.9),
    "distance": Limits(spread=0.4, high=2.0, flat=0.24, near=0.4),  # BYOL's: 4 + 4 · cosine
    "cross_entropy": Limits(spread=0.5, fall=0.02),
    "contrast": Limits(spread=0.5, fall=0.1),
    "redundancy": Limits(spread=2.0, fall=0.1),  # VICReg and Barlow Twins: 0.02 to 0.2 if healthy
    "regression": Limits(spread=0.2, fall=0.1),  # of distillation: 2 − 2 · cosine
    "other": Limits(spread=math.inf),  # of a method of the user's: nothing is known of it
}
# Options with which the limits of "redundancy" were chosen.
BARLOW_FACTOR, VICREG_WEIGHT = 0.024, 25.0


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """A diagnosis of a run.

    name: a key of `advice.ADVICE`. reason: the metrics that led to it; empty before the first record, when
    nothing speaks against "healthy". loss_type: a key of `LIMITS`. alike: whether images that are nearly
    alike could be the cause. options: those of the run, as for `advice.advice`.
    """

    name: str
    reason: str
    loss_type: str = "cosine"
    alike: bool = False
    options: Mapping[str, Any] | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def healthy(self) -> bool:
        return self.name == "healthy"

    @property
    def advice(self) -> str:
        return advice.advice(self.name, self.loss_type, self.alike, self.options)

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}. {self.advice}".strip() if self.reason else "none: no record yet."


def _scaled(limits: Limits, loss_type: str, options: Mapping[str, Any]) -> Limits:
    """The limits of VICReg's and Barlow Twins' losses, for other weights than the papers' codes have."""
    if loss_type != "redundancy":
        return limits
    factor = options.get("loss_factor", BARLOW_FACTOR) / BARLOW_FACTOR
    weights = [options.get(name, VICREG_WEIGHT) for name in ("invariance_weight", "variance_weight")]
    scale = factor * max(weights) / VICREG_WEIGHT
    return dataclasses.replace(limits, spread=limits.spread * scale, fall=limits.fall * scale)


def diagnose(
    records: Sequence[dict],
    total_steps: int,
    loss_type: str = "cosine",
    options: Mapping[str, Any] | None = None,
) -> Diagnosis:
    """Diagnoses a run of `total_steps` by its records; loss_type is a key of `LIMITS`.

    A collapse needs three records in a row, since a healthy run may dip once: std·√d below 0.1, or below
    0.4 where the loss is near its least value, or embeddings on a line (rank below 1.5) whose std shrinks
    (below 0.8) while views agree. A divergence needs one record. Other diagnoses are made only after the
    share SETTLED of the run and SETTLED_STEPS steps.

    records: the oldest first, each with "step", "loss", "loss_spread" (std over the record's steps), "std"
        (std of z/‖z‖ times √d) and "rank" (effective rank). Trends are read from at most MAX_RECORDS of
        them, evenly spaced.
    options: those of the run, as for `advice.advice`.
    """
    limits = _scaled(LIMITS[loss_type], loss_type, options or {})
    diagnosis = functools.partial(Diagnosis, loss_type=loss_type, options=options)
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
    fall, least = (middle - loss, limits.flat) if limits.flat else (records[0]["loss"] - loss, limits.fall)
    if high and fall < least:
        return diagnosis(
            "non-convergence",
            f"loss {loss:.3f}, {middle:.3f} before that and {records[0]['loss']:.3f} at the start, with "
            f"std·√d {last['std']:.2f}",
            alike=last["std"] > SPREAD_OUT,
        )
    rank = float(np.median([r["rank"] for r in tail]))
    peak = max((r["rank"] for r in spaced if r["std"] >= COLLAPSED_STD), default=0.0)
    if rank < max(LINE_RANK, LOW_RANK * peak):
        return diagnosis("partial collapse", f"effective rank {rank:.1f}, {peak:.1f} at its peak")
    return diagnosis("healthy", _metrics_text(last))


def _metrics_text(last: dict) -> str:
    return f"loss {last['loss']:.3f}, std·√d {last['std']:.2f}, effective rank {last['rank']:.1f}"


def check_features(
    diagnosis: Diagnosis, records: Sequence[dict], total_steps: int, std: float | None,
    unsettled: tuple[float, float] | None = None,
) -> Diagnosis:  # fmt: skip
    """Turns a healthy diagnosis into "constant features" where features at inference hardly vary.

    Records cannot show this: in training BN normalises by the statistics of the batch, at inference by moving
    averages. The diagnosis is not changed before the share SETTLED of the run.

    std: `features.extraction.inference_std`; None: unknown. unsettled: result of `nets.unsettled`.
    """
    if not diagnosis.healthy or std is None or not records or std >= CONSTANT_STD:
        return diagnosis
    last = records[-1]
    if last["step"] < SETTLED * total_steps or last["std"] < NEAR_STD:
        return diagnosis
    reason = (
        f"at inference all images have nearly the same features (std·√F {std:.2g}; {_metrics_text(last)})"
    )
    if unsettled:
        momentum, share = unsettled
        reason += (
            f". BN's moving averages have not settled: at momentum {momentum:g} they keep {share:.0%} of "
            f"their initial values after {last['step']} steps"
        )
    return dataclasses.replace(diagnosis, name="constant features", reason=reason)
