"""Prints all measures without labels of a backbone, of untrained weights and of raw pixels.

    python scripts/bench/judge.py runs/emoji list:sets/emoji/set.csv
    python scripts/bench/judge.py runs/emoji list:sets/emoji/set.csv --json

The measures are described in simsiam_tf/evaluate/label_free.py and spectra.py. With --json one line is
printed, {"run", "set", "measures", "baselines"}; with the "answers" of scripts/bench/set_answers.py added, it
is a row for scripts/bench/judge_correlation.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout's package

from simsiam_tf.command_line import cli  # noqa: E402
from simsiam_tf.runtime.errors import UserError  # noqa: E402


def measures_of_run(weights: str) -> dict[str, float]:
    """Loss, std and rank of z at the last record of a work folder, and its steps; empty without records."""
    last: dict = {}
    with contextlib.suppress(OSError):
        for line in (Path(weights) / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                last = row if "loss" in row else last
    names = {"loss": "loss", "std": "std of z", "rank": "rank of z", "step": "steps"}
    return {title: last[name] for name, title in names.items() if name in last}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("weights", help="a finished work folder, or what else --weights takes")
    parser.add_argument("data", help="images, as --data takes them, such as list:sets/emoji/set.csv")
    parser.add_argument("--images", type=int, help="number of images, at most 2,000")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample and of the queries")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    args = parser.parse_args(argv)
    with cli.heavy_imports():
        from simsiam_tf.evaluate import label_free
    try:
        measures = label_free.judge(args.weights, args.data, args.images, args.seed)
    except UserError as error:
        print(f"judge.py: {error}", file=sys.stderr)
        return 2
    trained = {**measures.pop("backbone"), **measures_of_run(args.weights)}
    if args.json:
        row = {"run": args.weights, "set": args.data, "measures": trained, "baselines": measures}
        print(json.dumps(row))
        return 0
    columns = ["this backbone", *measures]
    print(" " * 14 + "".join(f"{name:>20}" for name in columns))
    for name, value in trained.items():
        values = [value, *(baseline.get(name) for baseline in measures.values())]
        print(f"{name:14}" + "".join(f"{v:20.4g}" if v is not None else " " * 20 for v in values))
    return 0


if __name__ == "__main__":
    sys.exit(main())
