"""All that a backbone is worth, in a table: kNN, linear classifiers, few labels, random weights, raw pixels.

    python scripts/evaluate_all.py runs/fashion_mnist/seed0 runs/fashion_mnist/seed1

Runs each command of simsiam_tf that has no result yet in the work folder, one after another, the i-th
folder with --seed=i. Started again after an interruption, it goes on. --dry_run shows the commands. On
two cores both folders are judged sooner at a time, each by a command of its own on one core, the second with
--seed=1; a command for both then finds all results and prints the table.
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
    """The table's rows. flags: folder of the flagfiles."""
    made: list[Row] = []
    for name in ("this backbone", "raw pixels"):
        made += [
            (f"{name}, kNN, k = {k}", "knn.json", "knn_eval --out={file}", _of(name, f"k = {k}"))
            for k in (1, 5, 20, 200)
        ]
        made.append((f"{name}, kNN, chosen k", "knn.json", "knn_eval --out={file}", _of(name, "chosen k")))
    for kind, said in (("logistic", "logistic regression"), ("lars", "LARS"), ("sgd", "SGD")):
        file = f"probe-{kind}.json"
        command = f"probe --classifier={kind} --out={{file}}"
        made += [
            (f"{n}, kept features, {said}", file, command, _of(n, "test"))
            for n in ("this backbone", "raw pixels")
        ]
    for kind, said in (("linear", "LARS"), ("linear_sgd", "SGD")):
        command = f"linear_eval --flagfile={flags}/{kind}.cfg --workdir={{folder}}"
        made.append((f"linear evaluation, augmented views, {said}", f"{kind}/result.json", command, _top1))
    for percent, share in SHARES.items():
        if share < 1:
            file = f"probe-{percent}.json"
            command = f"probe --labels={share} --out={{file}}"
            made += [
                (f"{n}, logistic regression, {percent} % of the labels", file, command, _of(n, "test"))
                for n in ("this backbone", "raw pixels")
            ]
        for init, said in (("weights", "fine-tuned"), ("random", "from random weights")):
            command = f"finetune --flagfile={flags}/finetune_{percent}.cfg --init={init} --workdir={{folder}}"
            file = f"finetune_{percent}_{init}/result.json"
            made.append((f"{said}, {percent} % of the labels", file, command, _top1))
    return made


def _of(name: str, column: str) -> Callable[[dict], float | None]:
    return lambda result: result["accuracy"].get(name, {}).get(column)  # None after --raw_pixels=false


def _top1(result: dict) -> float:
    return result["top1"]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="WORKDIR", help="a finished pre-training")
    parser.add_argument("--flags", default="flags/fashion_mnist", help="folder of the flagfiles")
    parser.add_argument("--image_size", type=int, help="side of the images; by default as in pre-training")
    parser.add_argument("--seed", type=int, default=0, help="of the first folder, 1 more for each after it")
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument("--dry_run", action="store_true", help="show the commands that have no result yet")
    args = parser.parse_args(argv)
    wanted = [row for row in rows(args.flags) if args.only in row[0]]
    found: dict[str, list[float]] = {name: [] for name, *_ in wanted}
    said: set[str] = set()  # several rows may come from one command
    for seed, workdir in enumerate(args.workdirs, args.seed):
        for name, file, command, accuracy in wanted:
            path = workdir / file
            filled = command.format(file=shlex.quote(str(path)), folder=shlex.quote(str(path.parent)))
            whole = f"-m simsiam_tf.{filled} --weights={shlex.quote(str(workdir))} --seed={seed}"
            whole += f" --image_size={args.image_size}" if args.image_size else ""
            if not path.exists() and whole not in said:
                said.add(whole)
                print(f"python {whole}", flush=True)
                if not args.dry_run and subprocess.run([sys.executable, *shlex.split(whole)]).returncode:
                    print(f"evaluate_all.py: that command failed; {name!r} is left out", file=sys.stderr)
            if path.exists():
                value = accuracy(json.loads(path.read_text()))
                found[name] += [] if value is None else [value]
    if not args.dry_run:
        print(table(found, len(args.workdirs)))
    return 0


def table(found: dict[str, list[float]], seeds: int) -> str:
    """Markdown: a row a way of judging, a column a seed, and their mean."""
    lines = [
        "| | " + " | ".join(f"seed {i}" for i in range(seeds)) + " | mean |",
        "| --- " * (seeds + 2) + "|",
    ]
    for name, values in found.items():
        if len(values) == seeds:
            cells = [f"{100 * v:.2f}" for v in (*values, statistics.mean(values))]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
