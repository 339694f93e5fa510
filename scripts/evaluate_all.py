"""Scores a backbone in one table: kNN, linear classifiers, few labels, random weights, raw pixels.

    python scripts/evaluate_all.py runs/fashion_mnist/seed0 runs/fashion_mnist/seed1

Runs, one after another, the commands of simsiam_tf whose results are missing in a work folder: with --seed=0
for the first folder, --seed=1 for the second. Rerun it after an interruption. --dry_run shows the commands.
On two cores it is faster to score two folders at the same time, each by this script on one core, for the
second folder with --seed=1. Run with both folders, the script then reads all results and prints the table.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

SHARES = {"1": 0.01, "10": 0.1, "100": 1.0}  # % of the labels → --labels
Row = tuple[str, str, str, Callable[[dict], float | None]]  # name, file, command, result → accuracy


def rows(flags: str) -> list[Row]:
    """Rows of the table. flags: folder of the flagfiles for linear evaluation and fine-tuning."""
    table: list[Row] = []
    for name in ("this backbone", "raw pixels"):
        table += [
            (f"{name}, kNN, k = {k}", "knn.json", "knn_eval --out={file}", _accuracy(name, f"k = {k}"))
            for k in (1, 5, 20, 200)
        ]
        table.append(
            (f"{name}, kNN, chosen k", "knn.json", "knn_eval --out={file}", _accuracy(name, "chosen k"))
        )
    for classifier, label in (("logistic", "logistic regression"), ("lars", "LARS"), ("sgd", "SGD")):
        file = f"probe-{classifier}.json"
        command = f"probe --classifier={classifier} --out={{file}}"
        table += [
            (f"{n}, kept features, {label}", file, command, _accuracy(n, "test"))
            for n in ("this backbone", "raw pixels")
        ]
    for classifier, label in (("linear", "LARS"), ("linear_sgd", "SGD")):
        command = f"linear_eval --flagfile={flags}/{classifier}.cfg --workdir={{folder}}"
        table.append(
            (f"linear evaluation, augmented views, {label}", f"{classifier}/result.json", command, _top1)
        )
    for percent, share in SHARES.items():
        if share < 1:
            file = f"probe-{percent}.json"
            command = f"probe --labels={share} --out={{file}}"
            table += [
                (f"{n}, logistic regression, {percent} % of the labels", file, command, _accuracy(n, "test"))
                for n in ("this backbone", "raw pixels")
            ]
        for init, label in (("weights", "fine-tuned"), ("random", "from random weights")):
            command = f"finetune --flagfile={flags}/finetune_{percent}.cfg --init={init} --workdir={{folder}}"
            file = f"finetune_{percent}_{init}/result.json"
            table.append((f"{label}, {percent} % of the labels", file, command, _top1))
    return table


def _accuracy(name: str, column: str) -> Callable[[dict], float | None]:
    return lambda result: result["accuracy"].get(name, {}).get(column)  # None after --raw_pixels=false


def _top1(result: dict) -> float:
    return result["top1"]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="WORKDIR", help="a finished pre-training")
    parser.add_argument("--flags", default="flags/fashion_mnist", help="folder of linear.cfg and others")
    parser.add_argument(
        "--image_size", type=int, help="side of the images in pixels; by default as in pre-training"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the first folder; each further folder has the next seed",
    )
    parser.add_argument("--only", default="", help="only rows whose name contains this")
    parser.add_argument("--dry_run", action="store_true", help="show the commands that have no result yet")
    args = parser.parse_args(argv)
    wanted = [row for row in rows(args.flags) if args.only in row[0]]
    accuracies: dict[str, list[float]] = {name: [] for name, *_ in wanted}
    started: set[str] = set()  # several rows may come from one command
    for seed, workdir in enumerate(args.workdirs, args.seed):
        for name, file, command, accuracy in wanted:
            path = workdir / file
            filled = command.format(file=shlex.quote(str(path)), folder=shlex.quote(str(path.parent)))
            command_line = f"-m simsiam_tf.{filled} --weights={shlex.quote(str(workdir))} --seed={seed}"
            command_line += f" --image_size={args.image_size}" if args.image_size else ""
            if not path.exists() and command_line not in started:
                started.add(command_line)
                print(f"python {command_line}", flush=True)
                if (
                    not args.dry_run
                    and subprocess.run([sys.executable, *shlex.split(command_line)]).returncode
                ):
                    print(
                        f"evaluate_all.py: that failed; the table is without {name!r}",
                        file=sys.stderr,
                    )
            if path.exists():
                value = accuracy(json.loads(path.read_text()))
                accuracies[name] += [] if value is None else [value]
    if not args.dry_run:
        print(markdown(accuracies, range(args.seed, args.seed + len(args.workdirs))))
    return 0


def markdown(accuracies: dict[str, list[float]], seeds: range) -> str:
    """The table in Markdown: a row for each evaluation, a column for each seed, and their mean.

    An evaluation that failed or was left out for one of the seeds has no row.
    """
    lines = [
        "| | " + " | ".join(f"seed {i}" for i in seeds) + " | mean |",
        "| --- " * (len(seeds) + 2) + "|",
    ]
    for name, values in accuracies.items():
        if len(values) == len(seeds):
            cells = [f"{100 * v:.2f}" for v in (*values, statistics.mean(values))]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
