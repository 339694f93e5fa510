"""Prints how well measures without labels order runs as labelled answers do: Spearman's rank correlation.

    python scripts/bench/judge_correlation.py results.jsonl

A line of the file is a run:

    {"run": NAME, "set": SET, "answers": {"category": …, "pair": …}, "measures": {"recall1": …, …}}

The answers are those of scripts/bench/set_answers.py, the measures those of scripts/bench/judge.py. A run may
lack some of them. The last column, "all, within sets", correlates ranks that are counted within each set and
divided by its number of runs, so that differences between sets count for nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

POOLED = "all, within sets"
LEAST = 3  # runs, of which a correlation says anything


def correlations(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spearman's correlation of each measure with each answer, in each set and pooled within sets.

    Returns:
        Rows of "set", "answer", "measure", "runs" and "rho"; "rho" is NaN with fewer than `LEAST` runs, or
        where all values are equal.
    """
    sets = list(dict.fromkeys(row["set"] for row in rows))
    answers = list(dict.fromkeys(name for row in rows for name in row["answers"]))
    measures = list(dict.fromkeys(name for row in rows for name in row["measures"]))
    table = []
    for answer in answers:
        for measure in measures:
            pairs = {name: _pairs(rows, name, answer, measure) for name in sets}
            for name, values in pairs.items():
                table.append(_row(name, answer, measure, values))
            pooled = [pair for values in pairs.values() for pair in _ranks(values)]
            table.append(_row(POOLED, answer, measure, pooled))
    return [row for row in table if row["runs"]]


def _pairs(rows: Sequence[dict[str, Any]], name: str, answer: str, measure: str) -> list[tuple[float, float]]:
    """(measure, answer) of each run of a set that has both as finite numbers."""
    found = [(r["measures"].get(measure), r["answers"].get(answer)) for r in rows if r["set"] == name]
    return [(m, a) for m, a in found if m is not None and a is not None and math.isfinite(m + a)]


def _ranks(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Ranks within the pairs, in (0, 1)."""
    from scipy import stats

    columns = [(stats.rankdata(column) - 0.5) / len(pairs) for column in zip(*pairs, strict=True)]
    return list(zip(*columns, strict=True))


def _row(name: str, answer: str, measure: str, pairs: list[tuple[float, float]]) -> dict[str, Any]:
    from scipy import stats

    rho = math.nan
    if len(pairs) >= LEAST and all(len(set(column)) > 1 for column in zip(*pairs, strict=True)):
        rho = float(stats.spearmanr(*zip(*pairs, strict=True)).statistic)
    return {"set": name, "answer": answer, "measure": measure, "runs": len(pairs), "rho": rho}


def table(rows: list[dict[str, Any]]) -> str:
    """The correlations as Markdown: a table for each answer, measures as rows, sets as columns."""
    text = []
    for answer in dict.fromkeys(row["answer"] for row in rows):
        part = [row for row in rows if row["answer"] == answer]
        sets = {row["set"]: 0 for row in part}
        for row in part:
            sets[row["set"]] = max(sets[row["set"]], row["runs"])
        text.append("| " + " | ".join([answer, *(f"{n} ({runs} runs)" for n, runs in sets.items())]) + " |")
        text.append("| --- |" + " --- |" * len(sets))
        for measure in dict.fromkeys(row["measure"] for row in part):
            rho = {row["set"]: row["rho"] for row in part if row["measure"] == measure}
            cells = (f"{rho[n]:+.2f}" if math.isfinite(rho.get(n, math.nan)) else "" for n in sets)
            text.append(f"| {measure} | " + " | ".join(cells) + " |")
        text.append("")
    return "\n".join(text)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", type=Path, help="a line of JSON for each run")
    args = parser.parse_args(argv)
    try:
        lines = args.results.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
        print(table(correlations(rows)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"judge_correlation.py: {args.results}: {error!r}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
