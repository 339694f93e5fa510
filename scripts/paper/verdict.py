"""Answers to the paper's claims from runs of several seeds: firm, open or not shown."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from scripts.paper.claims import CLAIMS, Claim, RowMetrics

DRAWS = 2000
FIRM = 0.95  # share of the draws in which a claim holds, from which on it is firm
SEEDS = 3  # runs that every row needs for an answer other than open
ANSWERS = ("firm", "open", "not shown")


@dataclasses.dataclass(frozen=True)
class Scatter:
    """Standard deviation of linear accuracy between seeds, in points, and its degrees of freedom.

    Without degrees of freedom the deviation is NaN.
    """

    deviation: float
    freedom: int


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The answer to a claim.

    answer: one of `ANSWERS`. share: share of the draws in which the claim holds. seeds: fewest runs of a row.
    metrics: the metrics of the claim's rows, as text.
    """

    claim: Claim
    answer: str
    share: float
    seeds: int
    metrics: str

    @property
    def lacks_seeds(self) -> bool:
        """Whether there are too few seeds for an answer."""
        return self.seeds < SEEDS


def answer_claims(
    runs: Mapping[str, Sequence[dict]], title: Callable[[str, Claim], str] = lambda name, _: name
) -> list[Verdict]:
    """Answers to all claims whose rows have results.

    Each claim is evaluated `DRAWS` times. Each time a row's linear accuracy is drawn from the t distribution
    of its mean, and its loss, std and diagnosis are those of one random seed.

    Args:
        runs: row's name → metrics of its seeds.
        title: (row's name, claim) → title of the row.
    """
    shared = shared_scatter(runs)
    return [
        _verdict(claim, [_RowRuns(runs[name], shared, title(name, claim)) for name in claim.rows])
        for claim in CLAIMS
        if all(runs.get(name) for name in claim.rows)
    ]


def shared_scatter(runs: Mapping[str, Sequence[dict]]) -> Scatter:
    """The scatter pooled over all rows whose runs are all healthy; rows that share their runs count once."""
    return _pooled({tuple(map(id, row)): row for row in runs.values() if _healthy(row)}.values())


def _pooled(rows: Iterable[Sequence[dict]]) -> Scatter:
    repeated = [accuracies for accuracies in map(_accuracies, rows) if len(accuracies) > 1]
    freedom = sum(len(accuracies) - 1 for accuracies in repeated)
    squares = sum((len(accuracies) - 1) * statistics.variance(accuracies) for accuracies in repeated)
    return Scatter(math.sqrt(squares / freedom) if freedom else math.nan, freedom)


def _healthy(row: Sequence[dict]) -> bool:
    return all(run["diagnosis"] == "healthy" for run in row)


def _accuracies(row: Sequence[dict]) -> list[float]:
    return [100 * run["linear"] for run in row if run["linear"] is not None]


class _RowRuns:
    """The runs of a claim's row. Unless all of them are healthy, the row has a scatter of its own."""

    def __init__(self, runs: Sequence[dict], shared: Scatter, title: str) -> None:
        self.runs, self.title = runs, title
        self.scatter = shared if _healthy(runs) else _pooled([runs])
        self.accuracies = _accuracies(runs)
        self.mean = statistics.mean(self.accuracies) if self.accuracies else math.nan
        self.error = self.scatter.deviation / math.sqrt(max(1, len(self.accuracies)))

    def draws(self, generator: np.random.Generator) -> list[RowMetrics]:
        """`DRAWS` random metrics, as runs with other seeds might have had."""
        noise = generator.standard_t(max(1, self.scatter.freedom), DRAWS)
        seeds = generator.integers(len(self.runs), size=DRAWS)
        diverged = np.array([run["linear"] is None for run in self.runs])
        linear = np.where(diverged[seeds], math.nan, self.mean + np.nan_to_num(self.error) * noise)
        others = [_one_run(run) for run in self.runs]
        return [RowMetrics(x, *others[i]) for x, i in zip(linear.tolist(), seeds, strict=True)]

    def metric_text(self, name: str) -> str:
        """The metric of that name, a field of `RowMetrics`, as text."""
        values = [run[name] for run in self.runs if run[name] is not None]
        if not values:
            return diagnoses(self.runs)
        if name != "linear":
            label = {"std": "std·√d", "spread": "spread of the loss"}.get(name, name)
            return f"{label} {statistics.mean(values):.2f}, {diagnoses(self.runs)}"
        error = "" if math.isnan(self.error) else f" ± {self.error:.1f}"
        trouble = "" if _healthy(self.runs) else f", {diagnoses(self.runs)}"
        return f"linear {self.mean:.1f}{error} %{trouble}"


def diagnoses(runs: Sequence[dict]) -> str:
    """Diagnoses of the runs, with counts where they differ."""
    names = [run["diagnosis"] for run in runs]
    if len(set(names)) == 1:
        return names[0]
    return ", ".join(f"{names.count(name)}× {name}" for name in sorted(set(names)))


def _one_run(run: dict) -> tuple[float, float, float, str]:
    """(loss, std, spread of the loss, diagnosis) of a run; NaN after a divergence."""
    loss, std, spread = (math.nan if run[x] is None else run[x] for x in ("loss", "std", "spread"))
    return loss, std, spread, run["diagnosis"]


def _verdict(claim: Claim, rows: Sequence[_RowRuns]) -> Verdict:
    generator = np.random.default_rng(0)
    draws = zip(*(row.draws(generator) for row in rows), strict=True)
    share = sum(claim.holds(*metrics) for metrics in draws) / DRAWS
    answer = "firm" if share >= FIRM else "not shown" if share <= 1 - FIRM else "open"
    seeds = min(len(row.runs) for row in rows)
    metrics = "; ".join(f"{row.title}: {row.metric_text(claim.shows)}" for row in rows)
    return Verdict(claim, "open" if seeds < SEEDS else answer, share, seeds, metrics)
