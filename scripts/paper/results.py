"""What came out: a JSON file of all runs, and the tables *paper | ours* made from it."""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from scripts.paper import claims, scales, verdict
from scripts.paper.rows import BASE, DECAYED, TABLES, Row, Table
from scripts.paper.scales import SCALES
from simsiam_tf.runtime.atomic_files import atomic_write_text
from simsiam_tf.runtime.errors import UserError

HEAD = "| | paper, linear | linear | kNN, k = 20 | loss | std·√d | diagnosis | minutes | seeds |"


class Results:
    """The figures of runs, by flagfile and seed, in a file that is rewritten whole at every change."""

    def __init__(self, path: Path, scale: str) -> None:
        self.path, self.scale = path, scale
        self._runs: dict[tuple[str, int], dict] = {}
        self._read()

    def _read(self) -> None:
        if not self.path.exists():
            return
        try:
            held = json.loads(self.path.read_text(encoding="utf-8"))
            found = held["scale"]
            self._runs |= {(run["flags"], run["seed"]): run["figures"] for run in held["runs"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"--out: {self.path} is no file of results ({error}). Choose another.") from error
        if found != self.scale:
            raise UserError(f"--out: {self.path} has results of --scale={found}. Choose another file.")

    def get(self, flags: str, seed: int) -> dict | None:
        return self._runs.get((flags, seed))

    def of(self, flags: str) -> list[dict]:
        """Those of all seeds."""
        return [run for (key, _), run in sorted(self._runs.items()) if key == flags]

    def add(self, flags: str, seed: int, figures: dict) -> None:
        """Adds a run to what the file holds by now: another process may write it, too."""
        self._read()
        self._runs[flags, seed] = figures
        runs = [{"flags": f, "seed": s, "figures": run} for (f, s), run in sorted(self._runs.items())]
        held = {"scale": self.scale, "runs": runs}
        atomic_write_text(self.path, json.dumps(held, indent=1, ensure_ascii=False) + "\n")


def markdown(found: Mapping[str, list[dict]], scale: str, epochs: float | None = None) -> str:
    """The tables that have a result, and what they say of the paper's claims.

    found: row's name → the figures of its seeds, empty where there are none. epochs: of every pre-training,
    where they are not the scale's own.
    """
    more = (f"--epochs={epochs:g}",) if epochs else ()
    tables = [_titled(table, scale, more) for table in TABLES.values()]
    verdicts = verdict.judge(found, functools.partial(_title, tables))
    command = " ".join(("python -m scripts.paper.reproduce", f"--scale={scale}", *more))
    lines = [
        f"# Results at the scale of {scale}",
        "",
        f"`{command}` made this page: {SCALES[scale].about}{f'; all with {more[0]}' if more else ''}.",
        f"Mean ± standard deviation over the seeds of a row. {_circumstances(found)}",
        "The paper's figures are its own: ImageNet, ResNet-50, 100 epochs where a row names no others, "
        "linear top-1 in %. Ours are test accuracies in %, of a linear classifier and of kNN on the frozen "
        "backbone.",
        *_summary(verdicts),
    ]
    for table in tables:
        if any(found.get(row.name) for row in table.rows):
            lines += ["", f"## {table.title}", "", HEAD, "| --- " * HEAD.count(" | ") + "| --- |"]
            lines += [line(row, found.get(row.name, [])) for row in table.rows]
    return "\n".join([*lines, *_claims(verdicts, verdict.shared_scatter(found), scale)]) + "\n"


def _titled(table: Table, scale: str, more: tuple[str, ...]) -> Table:
    """A table whose titles say what its rows run with."""
    rows = [replace(row, title=scales.title(row, SCALES[scale], more)) for row in table.rows]
    return replace(table, rows=tuple(rows))


def _title(tables: Sequence[Table], name: str, claim: claims.Claim) -> str:
    """The title of a row in the table that has all rows of a claim, or one that stands by itself."""
    for table in tables:
        titles = {row.name: row.title for row in table.rows}
        if titles.keys() >= set(claim.rows):
            return titles[name]
    rows = (*(row for table in reversed(tables) for row in table.rows), BASE, DECAYED)
    return {row.name: row.title for row in rows}[name]


def _summary(verdicts: Sequence[verdict.Verdict]) -> list[str]:
    """The answers, counted."""
    if not verdicts:
        return []
    answers, total = [v.answer for v in verdicts], len(claims.CLAIMS)
    counts = ", ".join(f"{answers.count(answer)} {answer}" for answer in verdict.ANSWERS)
    missing = f"; {total - len(answers)} lack runs" if len(answers) < total else ""
    return ["", f"The paper's claims here: {counts} of {total}{missing} ([claim by claim](#claim-by-claim))."]


def _claims(verdicts: Sequence[verdict.Verdict], scatter: verdict.Scatter, scale: str) -> list[str]:
    """Claim by claim, and the likely reasons where a small scale says otherwise."""
    if not verdicts:
        return []
    lines = ["", "## Claim by claim", ""]
    lines += ["| the paper says | here | share | by |", "| --- | --- | --- | --- |"]
    lines += [f"| {v.claim.text} | {_answer(v)} | {v.figures} |" for v in verdicts]
    lines += [
        "",
        f"*Share* is how often a claim holds in {verdict.DRAWS:,} trials, each with the mean accuracies "
        "moved at random, as far as the scatter between seeds leaves them uncertain, and with the loss, std "
        "and diagnosis of one seed picked at random.",
        f"A claim is *firm* from {verdict.FIRM:.0%} on, *not shown* up to {1 - verdict.FIRM:.0%}, and *open* "
        f"between the two or while one of its rows has fewer than {verdict.SEEDS} seeds.",
    ]
    if scatter.freedom:
        lines.append(
            f"Here ± is the standard error of a mean. Rows whose runs are all healthy share a standard "
            f"deviation of {scatter.deviation:.2f} points; each other row has its own."
        )
    why = [v.claim for v in verdicts if v.share < 0.5 and v.claim.small]
    if why and scale != "imagenet":
        lines += ["", "Where the figures speak against the paper, the likely reason:", ""]
        lines += [f"- {claim.text}: {claim.small}" for claim in why]
    return lines


def _answer(v: verdict.Verdict) -> str:
    """The cells of an answer and its share, which few seeds do not have."""
    if v.lacks_seeds:
        return f"{v.answer}, {v.seeds} seed{'s' * (v.seeds > 1)} | –"
    return f"{v.answer} | {v.share:.0%}"


def line(row: Row, runs: list[dict]) -> str:
    """A row of a table."""
    paper = row.paper if isinstance(row.paper, str) else f"{row.paper:.1f}"
    if not runs:
        return f"| {row.title} | {paper} | | | | | not run yet | | 0 |"
    cells = [
        _mean(runs, "linear", 100, 1), _mean(runs, "knn", 100, 1), _mean(runs, "loss", 1, 3),
        _mean(runs, "std", 1, 2), verdict.diagnoses(runs),
        f"{statistics.mean(run['seconds'] for run in runs) / 60:.1f}", str(len(runs)),
    ]  # fmt: skip
    return f"| {row.title} | {paper} | {' | '.join(cells)} |"


def _mean(runs: list[dict], name: str, times: float, digits: int) -> str:
    values = [times * run[name] for run in runs if run[name] is not None]
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def _circumstances(found: Mapping[str, list[dict]]) -> str:
    """Where and when the runs were made."""
    runs = [run for of_row in found.values() for run in of_row]
    machines, dates = ({run[what] for run in runs} for what in ("machine", "date"))
    when = " to ".join(sorted({min(dates), max(dates)})) if dates else "no runs yet"
    return f"{'; '.join(sorted(machines))}; {when}."
