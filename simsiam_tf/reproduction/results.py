"""What came out: a JSON file of all runs, and the tables *paper | ours* made from it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

from simsiam_tf.errors import UserError
from simsiam_tf.files import replace_text
from simsiam_tf.reproduction import claims
from simsiam_tf.reproduction.rows import TABLES, Row
from simsiam_tf.reproduction.scales import SCALES

HEAD = "| | paper, linear | linear | kNN, k = 20 | loss | std·√d | diagnosis | minutes |"


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
        replace_text(self.path, json.dumps(held, indent=1, ensure_ascii=False) + "\n")


def markdown(found: Mapping[str, list[dict]], scale: str, tables: Iterable[str]) -> str:
    """The tables that have a result, and what they say of the paper's claims.

    found: row's name → the figures of its seeds, empty where there are none.
    """
    seeds = max((len(runs) for runs in found.values()), default=0)
    lines = [
        f"# Results at the scale of {scale}",
        "",
        f"`python -m simsiam_tf.reproduce --scale={scale}` made this page: {SCALES[scale].about}.",
        f"Up to {seeds} seed{'s' * (seeds > 1)} a row: mean ± standard deviation. {_circumstances(found)}",
        "The paper's figures are its own: ImageNet, ResNet-50, 100 epochs, linear top-1 in %. Ours are test "
        "accuracies in %, of a linear classifier and of kNN on the frozen backbone.",
    ]
    for key in tables:
        rows = TABLES[key].rows
        if not any(found.get(row.name) for row in rows):
            continue
        lines += ["", f"## {TABLES[key].title}", "", HEAD, "| --- " * HEAD.count(" | ") + "| --- |"]
        lines += [line(row, found.get(row.name, [])) for row in rows]
    return "\n".join([*lines, *_claims(found, scale)]) + "\n"


def _claims(found: Mapping[str, list[dict]], scale: str) -> list[str]:
    """Claim by claim, and the likely reasons where a small scale says otherwise."""
    judged = claims.judge(found)
    if not judged:
        return []
    lines = ["", "## Claim by claim", "", "| the paper says | here | by |", "| --- | --- | --- |"]
    lines += [f"| {claim.text} | {answer} | {said} |" for claim, answer, said in judged]
    lines += [
        "",
        f"*Narrowly*: with accuracies off by {claims.NARROW} points, the standard error of 85 % on 10,000 "
        "images, it would be answered the other way.",
    ]
    why = [claim for claim, answer, _ in judged if answer.startswith("no") and claim.small]
    if why and scale != "imagenet":
        lines += ["", "Where it is not as the paper says, the likely reason:", ""]
        lines += [f"- {claim.text}: {claim.small}" for claim in why]
    return lines


def line(row: Row, runs: list[dict]) -> str:
    """A row of a table."""
    paper = row.paper if isinstance(row.paper, str) else f"{row.paper:.1f}"
    if not runs:
        return f"| {row.title} | {paper} | | | | | not run yet | |"
    names = [run["diagnosis"] for run in runs]
    said = (
        names[0] if len(set(names)) == 1 else ", ".join(f"{names.count(n)}× {n}" for n in sorted(set(names)))
    )
    cells = [
        _mean(runs, "linear", 100, 1), _mean(runs, "knn", 100, 1), _mean(runs, "loss", 1, 3),
        _mean(runs, "std", 1, 2), said, f"{statistics.mean(run['seconds'] for run in runs) / 60:.1f}",
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
