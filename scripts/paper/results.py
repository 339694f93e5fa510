"""Results: a JSON file of all runs, and tables made from it, our results beside the paper's."""

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
    """Metrics of runs, by the text of the flagfile and seed, in a file that is rewritten at every change."""

    def __init__(self, path: Path, scale: str) -> None:
        self.path, self.scale = path, scale
        self._runs: dict[tuple[str, int], dict] = {}
        self._read()

    def _read(self) -> None:
        if not self.path.exists():
            return
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            scale = stored["scale"]
            self._runs |= {(run["flags"], run["seed"]): run["figures"] for run in stored["runs"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"--out: {self.path} is not a file of results ({error}). Choose another."
            ) from error
        if scale != self.scale:
            raise UserError(f"--out: {self.path} has results of --scale={scale}. Choose another file.")

    def get(self, flags: str, seed: int) -> dict | None:
        return self._runs.get((flags, seed))

    def runs_of_flags(self, flags: str) -> list[dict]:
        """Metrics of the runs of all seeds."""
        return [run for (key, _), run in sorted(self._runs.items()) if key == flags]

    def add(self, flags: str, seed: int, metrics: dict) -> None:
        """Adds a run to the file's present contents, which another process may have changed."""
        self._read()
        self._runs[flags, seed] = metrics
        runs = [{"flags": f, "seed": s, "figures": run} for (f, s), run in sorted(self._runs.items())]
        stored = {"scale": self.scale, "runs": runs}
        atomic_write_text(self.path, json.dumps(stored, indent=1, ensure_ascii=False) + "\n")


def markdown(runs_of_rows: Mapping[str, list[dict]], scale: str, epochs: float | None = None) -> str:
    """Markdown of the tables that have a result, and the answers to the paper's claims.

    runs_of_rows: row's name → metrics of its seeds, empty where there are none. epochs: length of every
    pre-training, where it is not that of the scale.
    """
    more = (f"--epochs={epochs:g}",) if epochs else ()
    tables = [_titled(table, scale, more) for table in TABLES.values()]
    verdicts = verdict.answer_claims(runs_of_rows, functools.partial(_title, tables))
    command = " ".join(("python -m scripts.paper.reproduce", f"--scale={scale}", *more))
    lines = [
        f"# Results at the scale of {scale}",
        "",
        f"`{command}` made this page: {SCALES[scale].about}{f'; all with {more[0]}' if more else ''}.",
        f"Mean ± standard deviation over the seeds of a row. {_circumstances(runs_of_rows)}",
        "The paper's column is ImageNet linear top-1 in %, by ResNet-50 after 100 epochs unless a row says "
        "otherwise. Columns *linear* and *kNN* are our test accuracies in %, on the frozen backbone.",
        *_summary(verdicts),
    ]
    for table in tables:
        if any(runs_of_rows.get(row.name) for row in table.rows):
            lines += ["", f"## {table.title}", "", HEAD, "| --- " * HEAD.count(" | ") + "| --- |"]
            lines += [table_row(row, runs_of_rows.get(row.name, [])) for row in table.rows]
    return "\n".join([*lines, *_claims(verdicts, verdict.shared_scatter(runs_of_rows), scale)]) + "\n"


def _titled(table: Table, scale: str, more: tuple[str, ...]) -> Table:
    """The table with the numbers in its row titles filled in, such as the batch size."""
    rows = [replace(row, title=scales.row_title(row, SCALES[scale], more)) for row in table.rows]
    return replace(table, rows=tuple(rows))


def _title(tables: Sequence[Table], name: str, claim: claims.Claim) -> str:
    """The title of a row in the table that has all rows of a claim, or in another table."""
    for table in tables:
        titles = {row.name: row.title for row in table.rows}
        if titles.keys() >= set(claim.rows):
            return titles[name]
    rows = (*(row for table in reversed(tables) for row in table.rows), BASE, DECAYED)
    return {row.name: row.title for row in rows}[name]


def _summary(verdicts: Sequence[verdict.Verdict]) -> list[str]:
    """The number of claims by answer."""
    if not verdicts:
        return []
    answers, total = [v.answer for v in verdicts], len(claims.CLAIMS)
    counts = ", ".join(f"{answers.count(answer)} {answer}" for answer in verdict.ANSWERS)
    missing = f"; {total - len(answers)} lack runs" if len(answers) < total else ""
    return ["", f"The paper's claims here: {counts} of {total}{missing} ([claim by claim](#claim-by-claim))."]


def _claims(verdicts: Sequence[verdict.Verdict], scatter: verdict.Scatter, scale: str) -> list[str]:
    """The table of claims, and likely reasons where a claim holds in less than half of the trials."""
    if not verdicts:
        return []
    lines = ["", "## Claim by claim", ""]
    lines += ["| the paper says | here | share | measured |", "| --- | --- | --- | --- |"]
    lines += [f"| {v.claim.text} | {_answer(v)} | {v.metrics} |" for v in verdicts]
    lines += [
        "",
        f"*Share* is how often a claim holds in {verdict.DRAWS:,} trials, each with random errors added to "
        "the mean accuracies, as large as the scatter between seeds implies, and with the loss, std and "
        "diagnosis of one seed picked at random.",
        f"A claim is *firm* from {verdict.FIRM:.0%} on, *not shown* up to {1 - verdict.FIRM:.0%}, and *open* "
        f"between the two or while one of its rows has fewer than {verdict.SEEDS} seeds.",
    ]
    if scatter.freedom:
        lines.append(
            f"Here ± is the standard error of a mean. Rows whose runs are all healthy share a standard "
            f"deviation of {scatter.deviation:.2f} points; each other row has its own."
        )
    why = [v.claim for v in verdicts if v.share < 0.5 and v.claim.caveat]
    if why and scale != "imagenet":
        lines += ["", "Likely reasons where a share is below 50%:", ""]
        lines += [f"- {claim.text}: {claim.caveat}" for claim in why]
    return lines


def _answer(v: verdict.Verdict) -> str:
    """The cells "answer | share"; no share with too few seeds."""
    if v.lacks_seeds:
        return f"{v.answer}, {v.seeds} seed{'s' * (v.seeds > 1)} | –"
    return f"{v.answer} | {v.share:.0%}"


def table_row(row: Row, runs: list[dict]) -> str:
    """A row of a table in Markdown."""
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


def _circumstances(runs_of_rows: Mapping[str, list[dict]]) -> str:
    """Machines and dates of the runs."""
    runs = [run for row in runs_of_rows.values() for run in row]
    machines, dates = ({run[what] for run in runs} for what in ("machine", "date"))
    when = " to ".join(sorted({min(dates), max(dates)})) if dates else "no runs yet"
    return f"{'; '.join(sorted(machines))}; {when}."
