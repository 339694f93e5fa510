"""The paper's claims as predicates on the metrics of rows, at any scale.

Margins are in points of linear accuracy, wide enough that the paper's own results satisfy every claim.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

COLLAPSED = 0.1  # std·√d of a collapsed embedding is below this
SPREAD_OUT = 0.5  # std·√d of a healthy embedding is above this
UNSTEADY = 2.0  # the spread of an unsteady loss is above this times the default row's


@dataclasses.dataclass(slots=True)
class RowMetrics:
    """Metrics of a row: linear accuracy in %, mean of the seeds with a random error; the others of one run.

    NaN after a divergence.
    """

    linear: float
    loss: float
    std: float
    spread: float
    diagnosis: str


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    text: the claim in words. rows: names of rows, in the order in which `holds` takes their `RowMetrics`.
    shows: the metric that the answer depends on: "linear", "loss", "std" or "spread".
    caveat: why the claim may not show at the scale of fashion_mnist.
    """

    text: str
    rows: tuple[str, ...]
    holds: Callable[..., bool]
    shows: str = "linear"
    caveat: str = ""


def _paper(*names: str) -> tuple[str, ...]:
    return tuple(f"paper/{name}" for name in names)


def _compare(*names: str) -> tuple[str, ...]:
    return tuple(f"compare/{name}" for name in names)


def _collapsed(row: RowMetrics) -> bool:
    return row.std < COLLAPSED or row.diagnosis == "collapse"


def _stable(row: RowMetrics) -> bool:
    """Whether the run neither collapsed nor diverged (std NaN)."""
    return row.std >= COLLAPSED and row.diagnosis not in ("collapse", "divergence")


def _within(points: float, first: RowMetrics, *others: RowMetrics) -> bool:
    """Whether no other row is more than `points` worse than the first."""
    return all(first.linear - other.linear <= points for other in others)


def _two_worst(first: RowMetrics, *others: RowMetrics) -> bool:
    """Whether the first and the last are worse than each row between them."""
    *between, last = others
    return all(end.linear < row.linear for end in (first, last) for row in between)


_BATCHES = (64, 128, 256, 512, 1024, 2048, 4096)

CLAIMS = (
    Claim(
        "Fig. 2: without stop-gradient all images get one embedding",
        _paper("fig2_without_stop_gradient"), _collapsed, "std",
    ),
    Claim(
        "Fig. 2: with stop-gradient the std of z/‖z‖ stays near 1/√d",
        _paper("fig2_with_stop_gradient"), lambda a: a.std > SPREAD_OUT, "std",
    ),
    Claim(
        "Table 1 a: without a predictor training collapses",
        _paper("table1_a_no_predictor"), _collapsed, "std",
    ),
    Claim(
        "Table 1 b: with a fixed predictor the loss stays high, without a collapse",
        _paper("table1_b_fixed_predictor", "fig2_with_stop_gradient"),
        lambda fixed, base: _stable(fixed) and fixed.loss > base.loss / 2, "loss",
    ),
    Claim(
        "Table 1 c: a constant lr of h is better than a decayed one",
        _paper("table1_c_constant_lr", "fig2_with_stop_gradient"), lambda c, base: c.linear > base.linear,
        caveat="h has ten times the learning rate of the other layers here: with decay, too, it learns "
        "fast enough, and without decay it does not settle.",
    ),
    Claim(
        "Table 2: batches of 128 to 2048 are within a point of 256",
        _paper("table2_batch_256", *(f"table2_batch_{b}" for b in (128, 512, 1024, 2048))),
        lambda *all_: _within(1.0, *all_),
        caveat="an epoch has few steps here, and fewer with larger batches, which end before they have "
        "learned as much as smaller ones.",
    ),
    Claim(
        "Table 2: the smallest and the largest batch are the two worst",
        _paper(*(f"table2_batch_{b}" for b in _BATCHES)),
        _two_worst,
        caveat="the smallest takes the most steps, which are scarce here; and BN in the backbone averages "
        "over the pixels of a map as well, so that its statistics are exact enough.",
    ),
    Claim(
        "Table 3 a: without BN in the heads training does not collapse, but learns little",
        _paper("table3_a_no_bn", "table3_c_default_bn"),
        lambda none, default: _stable(none) and none.linear < default.linear - 5,
        caveat="z is nearly the same for all images, so that std·√d is below the limit of this diagnosis, "
        "while kNN still tells classes apart. The paper's 34.6 % is no complete collapse either.",
    ),
    Claim(
        "Table 3 b: BN on the hidden layers alone is nearly enough",
        _paper("table3_c_default_bn", "table3_b_hidden_bn"), lambda *all_: _within(1.0, *all_),
    ),
    Claim(
        "Table 3 d: BN on the predictor's output makes the loss unsteady",
        _paper("table3_d_all_bn", "table3_c_default_bn"),
        lambda d, c: d.diagnosis == "oscillation" or d.spread > UNSTEADY * c.spread, "spread",
        "these are a thousand steps of a small network; the paper saw it over 250,000 steps of ResNet-50.",
    ),
    Claim(
        "Sec. 4.4: scale and shift of the output BN do not matter",
        _paper("table3_c_default_bn", "sec44_output_bn_without_affine"), lambda *all_: _within(0.5, *all_),
    ),
    Claim(
        "Sec. 4.5: cross-entropy does not collapse",
        _paper("sec45_cross_entropy"), lambda a: _stable(a), "std",
    ),
    Claim(
        "Sec. 4.5: cross-entropy is worse than cosine",
        _paper("sec45_cross_entropy", "table1_c_constant_lr"), lambda a, cosine: a.linear < cosine.linear,
    ),
    Claim(
        "Sec. 4.6: an asymmetric loss learns too, less than a symmetric one",
        _paper("sec46_asymmetric", "table1_c_constant_lr"),
        lambda a, both: _stable(a) and a.linear < both.linear,
    ),
    Claim(
        "Sec. 4.6: two pairs per image regain most of the accuracy that an asymmetric loss costs",
        _paper("sec46_asymmetric", "sec46_asymmetric_2x", "table1_c_constant_lr"),
        lambda one, two, both: two.linear - one.linear > (both.linear - one.linear) / 2,
    ),
    Claim(
        "App. B: a larger d is better",
        _paper("appb_d_256", "appb_d_512", "appb_d_1024", "table1_c_constant_lr"),
        lambda *all_: all(a.linear < b.linear for a, b in zip(all_, all_[1:], strict=False)),
        caveat="ten classes of gray images do not fill even the smallest d: the effective rank of z is "
        "six to eleven.",
    ),
    Claim(
        "Sec. 5: alternation works for k of 1 to 100",
        _paper("table1_c_constant_lr", *(f"sec5_alternation_{k}" for k in (1, 10, 100))),
        lambda *all_: _within(1.0, *all_),
    ),
    Claim(
        "Sec. 5: alternation works with targets kept for a whole epoch",
        _paper("table1_c_constant_lr", "sec5_alternation_epoch"), lambda *all_: _within(1.5, *all_),
    ),
    Claim(
        "Sec. 5: a moving average per image replaces the predictor, at a lower accuracy",
        _paper("sec5_moving_average", "table1_a_no_predictor", "table1_c_constant_lr"),
        lambda a, none, base: _stable(a) and none.linear < a.linear < base.linear,
    ),
    Claim(
        "Sec. 6.2: neither predictor nor stop-gradient improves SimCLR",
        _compare("simclr", "simclr_predictor", "simclr_predictor_stop_gradient"),
        lambda base, *more: all(a.linear <= base.linear for a in more),
        caveat="eight epochs, in which the predictor's own BN and rate still help, by a point; the paper's "
        "differences are at most half a point.",
    ),
    Claim(
        "Sec. 6.2: a predictor does not improve SwAV",
        _compare("swav", "swav_predictor"), lambda base, more: more.linear <= base.linear,
        caveat="eight epochs, in which the predictor's own BN and rate still help; the paper's difference is "
        "little more than a point, too.",
    ),
    Claim(
        "Sec. 6.2: without stop-gradient SwAV diverges",
        _compare("swav_without_stop_gradient"), lambda a: a.diagnosis == "divergence", "std",
        "codes that follow the predictions lower the loss, with or without a bound. Here this ends in "
        "a collapse; with the paper's larger learning rates it ended in NaN.",
    ),
    Claim(
        "Table 4: at 100 epochs SimSiam is the best of the five",
        _compare("simsiam", "simclr", "moco", "byol", "swav"),
        lambda ours, *others: all(ours.linear > other.linear for other in others),
        caveat="with ten classes, contrast with a batch's other images is as good; the learning rates of the "
        "other methods were chosen in a run or two, and a thousand steps are few for MoCo's momentum "
        "encoder.",
    ),
)  # fmt: skip
