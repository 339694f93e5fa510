"""What the paper claims, as questions that the figures of any scale answer.

Margins are in points of linear accuracy, those within which the paper's own figures lie.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence

COLLAPSED, SPREAD_OUT = 0.1, 0.5  # std·√d below and above
STANDING = 2.0  # times the loss's unrest of the default
NARROW = 0.4  # points: the standard error of an accuracy of 85 % on 10,000 images


@dataclasses.dataclass(frozen=True)
class Found:
    """Means over the seeds of a row. linear, knn: in %, NaN where the run diverged."""

    linear: float
    knn: float
    loss: float
    std: float
    rank: float
    unrest: float
    diagnoses: frozenset[str]


Test = Callable[..., bool]


@dataclasses.dataclass(frozen=True)
class Claim:
    """text: as a sentence. rows: names, in the order in which `holds` takes what was found of them.

    shows: the figures that the answer rests on: "linear", "knn", "loss", "std" or "unrest".
    small: why a small scale may not show it.
    """

    text: str
    rows: tuple[str, ...]
    holds: Test
    shows: str = "linear"
    small: str = ""

    def answer(self, found: Sequence[Found]) -> str:
        """ "yes" or "no"; narrowly, where accuracies off by NARROW would answer the other way."""
        held = self.holds(*found)
        moves = itertools.product((-NARROW, NARROW), repeat=len(found))
        narrow = self.shows == "linear" and any(
            held != self.holds(*(_moved(a, by) for a, by in zip(found, move, strict=True))) for move in moves
        )
        return ("yes" if held else "no") + ", narrowly" * narrow


def _moved(found: Found, points: float) -> Found:
    return dataclasses.replace(found, linear=found.linear + points)


def _paper(*names: str) -> tuple[str, ...]:
    return tuple(f"paper/{name}" for name in names)


def _compare(*names: str) -> tuple[str, ...]:
    return tuple(f"compare/{name}" for name in names)


def _collapsed(found: Found) -> bool:
    return found.std < COLLAPSED or "collapse" in found.diagnoses


def _within(points: float, *found: Found) -> bool:
    """Whether none is so much worse than the first."""
    return all(found[0].linear - other.linear <= points for other in found[1:])


_BATCHES = (64, 128, 256, 512, 1024, 2048, 4096)

CLAIMS = (
    Claim(
        "Fig. 2: without stop-gradient all images get one embedding",
        _paper("fig2_without_stop_gradient"), _collapsed, "std",
    ),
    Claim(
        "Fig. 2: with it the std of z/‖z‖ stays near 1/√d",
        _paper("fig2_with_stop_gradient"), lambda a: a.std > SPREAD_OUT, "std",
    ),
    Claim("Table 1 a: without a predictor it collapses", _paper("table1_a_no_predictor"), _collapsed, "std"),
    Claim(
        "Table 1 b: with a fixed predictor the loss stays high, without a collapse",
        _paper("table1_b_fixed_predictor", "fig2_with_stop_gradient"),
        lambda fixed, base: not _collapsed(fixed) and fixed.loss > base.loss / 2, "loss",
    ),
    Claim(
        "Table 1 c: a constant lr of h is better than a decayed one",
        _paper("table1_c_constant_lr", "fig2_with_stop_gradient"), lambda c, base: c.linear > base.linear,
        small="h has ten times the rate of the rest here, so that it keeps ahead with decay, too, and "
        "without does not settle.",
    ),
    Claim(
        "Table 2: batches of 128 to 2048 are within a point of 256",
        _paper("table2_batch_256", *(f"table2_batch_{b}" for b in (128, 512, 1024, 2048))),
        lambda *all_: _within(1.0, *all_),
        small="an epoch has few steps here, and the larger the batch, the fewer: the larger ones end before "
        "they have learned what the smaller have.",
    ),
    Claim(
        "Table 2: the smallest and the largest batch are the two worst",
        _paper(*(f"table2_batch_{b}" for b in _BATCHES)),
        lambda *all_: max(all_[0].linear, all_[-1].linear) < min(a.linear for a in all_[1:-1]),
        small="the smallest takes the most steps, which are scarce here; and its BN is over the places of a "
        "map as well, so that it lacks no numbers.",
    ),
    Claim(
        "Table 3 a: without BN in the heads it does not collapse, but learns little",
        _paper("table3_a_no_bn", "table3_c_default_bn"),
        lambda none, default: not _collapsed(none) and none.linear < default.linear - 5,
        small="what the images share fills z, so that std·√d is below our limit, while kNN still tells "
        "classes apart: the paper's 34.6 % is no complete collapse either.",
    ),
    Claim(
        "Table 3 b: BN on the hidden layers alone is nearly enough",
        _paper("table3_c_default_bn", "table3_b_hidden_bn"), lambda *all_: _within(1.0, *all_),
    ),
    Claim(
        "Table 3 d: BN on the predictor's output makes the loss unsteady",
        _paper("table3_d_all_bn", "table3_c_default_bn"),
        lambda d, c: "oscillation" in d.diagnoses or d.unrest > STANDING * c.unrest, "unrest",
        "a thousand steps of a small network; the paper saw it in a quarter of a million of ResNet-50.",
    ),
    Claim(
        "Sec. 4.4: scale and shift of the output BN do not matter",
        _paper("table3_c_default_bn", "sec44_output_bn_without_affine"), lambda *all_: _within(0.5, *all_),
    ),
    Claim(
        "Sec. 4.5: cross-entropy does not collapse",
        _paper("sec45_cross_entropy"), lambda a: not _collapsed(a), "std",
    ),
    Claim(
        "Sec. 4.5: it is worse than cosine",
        _paper("sec45_cross_entropy", "table1_c_constant_lr"), lambda a, cosine: a.linear < cosine.linear,
    ),
    Claim(
        "Sec. 4.6: an asymmetric loss learns too, less than a symmetric one",
        _paper("sec46_asymmetric", "table1_c_constant_lr"),
        lambda a, both: not _collapsed(a) and a.linear < both.linear,
    ),
    Claim(
        "Sec. 4.6: two pairs an image make up for most of that",
        _paper("sec46_asymmetric", "sec46_asymmetric_2x", "table1_c_constant_lr"),
        lambda one, two, both: two.linear - one.linear > (both.linear - one.linear) / 2,
    ),
    Claim(
        "App. B: a larger d is better",
        _paper("appb_d_256", "appb_d_512", "appb_d_1024", "table1_c_constant_lr"),
        lambda *all_: all(a.linear < b.linear for a, b in zip(all_, all_[1:], strict=False)),
        small="ten classes of grey images do not fill even the smallest d: what z holds has an "
        "effective rank of six to eleven.",
    ),
    Claim(
        "Sec. 5: alternation works for k of 1 to 100",
        _paper("table1_c_constant_lr", *(f"sec5_alternation_{k}" for k in (1, 10, 100))),
        lambda *all_: _within(1.0, *all_),
    ),
    Claim(
        "Sec. 5: and for a whole epoch",
        _paper("table1_c_constant_lr", "sec5_alternation_epoch"), lambda *all_: _within(1.5, *all_),
    ),
    Claim(
        "Sec. 5: a moving average an image does without a predictor, at a price",
        _paper("sec5_moving_average", "table1_a_no_predictor", "table1_c_constant_lr"),
        lambda a, none, base: not _collapsed(a) and none.linear < a.linear < base.linear,
    ),
    Claim(
        "Sec. 6.2: neither predictor nor stop-gradient improves SimCLR",
        _compare("simclr", "simclr_predictor", "simclr_predictor_stop_gradient"),
        lambda base, *more: all(a.linear <= base.linear for a in more),
        small="all three are within a point of each other, as in the paper; more seeds would be needed to "
        "put them in order.",
    ),
    Claim(
        "Sec. 6.2: a predictor does not improve SwAV",
        _compare("swav", "swav_predictor"), lambda base, more: more.linear <= base.linear,
        small="eight epochs, in which the predictor's own BN and rate still help; the paper's difference is "
        "little more than a point, too.",
    ),
    Claim(
        "Sec. 6.2: without stop-gradient SwAV diverges",
        _compare("swav_without_stop_gradient"), lambda a: "divergence" in a.diagnoses,
        small="the loss falls by codes that follow the predictions, with or without a bound: here it ends in "
        "a collapse, where the paper's larger rates ended in numbers that are none.",
    ),
    Claim(
        "Table 4: at 100 epochs SimSiam is the best of the five",
        _compare("simsiam", "simclr", "moco", "byol", "swav"),
        lambda ours, *others: all(ours.linear > other.linear for other in others),
        small="with ten classes, contrast with a batch's other images is as good; the rates of the others "
        "were chosen in a run or two, and MoCo's momentum encoder is slow for a thousand steps.",
    ),
)  # fmt: skip


def judge(found: Mapping[str, Sequence[dict]]) -> list[tuple[Claim, str, str]]:
    """(claim, its answer, the figures), of all claims whose rows have results."""
    judged = []
    for claim in CLAIMS:
        if all(found.get(name) for name in claim.rows):
            means = [_found(found[name]) for name in claim.rows]
            said = "; ".join(
                f"{name.partition('/')[2]} {_shown(mean, claim.shows)}"
                for name, mean in zip(claim.rows, means, strict=True)
            )
            judged.append((claim, claim.answer(means), said))
    return judged


def _found(runs: Sequence[dict]) -> Found:
    def mean(name: str, times: float = 1.0) -> float:
        values = [run[name] for run in runs]
        return float("nan") if None in values else times * statistics.mean(values)

    return Found(
        linear=mean("linear", 100), knn=mean("knn", 100), loss=mean("loss"), std=mean("std"),
        rank=mean("rank"), unrest=mean("spread"),
        diagnoses=frozenset(run["diagnosis"] for run in runs),
    )  # fmt: skip


def _shown(found: Found, name: str) -> str:
    if "divergence" in found.diagnoses:
        return "divergence"
    if name in ("linear", "knn"):
        return f"{name} {getattr(found, name):.1f} %"
    if name == "std":
        return f"std·√d {found.std:.2f}, effective rank {found.rank:.1f}"
    return f"{'spread of the loss' if name == 'unrest' else name} {getattr(found, name):.2f}"
