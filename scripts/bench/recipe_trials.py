"""Trains a set by variants of a recipe for the same time each, and asks the set's questions.

    bash scripts/sets.sh icons sets/icons
    python scripts/bench/recipe_trials.py method sets/icons --minutes=6 --out=runs/trials

TRIALS names the experiments of docs/recipes.md. Each variant is README's command, `pretrain --recipe=auto`,
with some more flags and no monitor, and its features are read as they are exported. Runs that have finished
in OUT are not repeated. --start=file:runs/lite0+weights begins them with a published network, as
docs/networks.md makes it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout's package and scripts

import set_answers  # noqa: E402

from scripts.sets.set_file import Picture, read_set  # noqa: E402
from simsiam_tf.command_line import cli  # noqa: E402

# LARS as in the papers of these two: their losses are far steeper than the others'.
_LARS = ["--optimizer=lars", "--base_lr=0.3", "--weight_decay=1e-4", "--d=1024"]
NOTHING = "--epochs=0"
THEN = "then"  # between two trainings of half the time each; the second has the weights of the first
_GO_ON = ["--base_lr=0.3", "--decoded_size=64"]  # the recipe's, for random weights and views of 32 pixels
TRIALS: dict[str, dict[str, list[str]]] = {
    "method": {
        "SimCLR": [],
        "SimSiam": ["--method=simsiam"],
        "VICReg": ["--method=vicreg", *_LARS],
        "Barlow Twins": ["--method=barlow", *_LARS],
        "SimCLR, 2 local views": ["--local_views=2"],
    },
    "rate": {f"base_lr {lr}": [f"--base_lr={lr}"] for lr in (0.1, 0.3, 0.6, 1.2)},
    "optimizer": {
        "SGD": [],
        "AdamW": ["--optimizer=adamw", "--base_lr=0.001", "--weight_decay=0.01"],
        "LARS": ["--optimizer=lars", "--base_lr=0.3", "--weight_decay=1e-4"],
    },
    "temperature": {f"temperature {t}": [f"--temperature={t}"] for t in (0.1, 0.2, 0.5)},
    "width": {f"width {w}": [f"--width={w}"] for w in (0.5, 0.75, 1.0)},
    "view size": {f"{s} pixels": [f"--image_size={s}", f"--decoded_size={2 * s}"] for s in (24, 32, 48)},
    "growing views": {
        "32 pixels": [],
        "24 pixels, then 32": ["--image_size=24", "--decoded_size=64", THEN, "--image_size=32", *_GO_ON],
        "16 pixels, then 32": ["--image_size=16", "--decoded_size=64", THEN, "--image_size=32", *_GO_ON],
        "32 pixels, then 32": [THEN, *_GO_ON],
    },
    "batch": {f"batch of {b}": [f"--batch_size={b}"] for b in (64, 128, 256, 512)},
    "jitter": {f"jitter {j}": [f"--jitter={j}"] for j in (0.2, 0.4, 0.8)},
    "published": {  # with --start
        "nothing trained": [NOTHING],
        **{f"base_lr {lr}": [f"--base_lr={lr}"] for lr in (0.01, 0.05)},
        "last blocks": ["--freeze_until=blocks_12", "--backbone_lr_factor=0.1", "--base_lr=0.3"],
    },
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("trial", choices=TRIALS)
    parser.add_argument("folder", type=Path, help="a set that scripts/sets.sh has made")
    parser.add_argument("--minutes", type=float, default=6.0, help="time of each training")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--start", metavar="NETWORK", help="a --backbone for all variants, such as file:X+weights"
    )
    parser.add_argument("--only", help="train this variant alone")
    args = parser.parse_args(argv)
    variants = TRIALS[args.trial]
    if args.only and args.only not in variants:
        parser.error(f"--only={args.only}: is none of {', '.join(variants)}")
    with cli.heavy_imports():
        import simsiam_tf.features  # noqa: F401
    try:
        rows = read_set(args.folder)
    except (OSError, ValueError) as error:
        print(f"recipe_trials.py: {error}", file=sys.stderr)
        return 2
    print("| variant | minutes | steps | category | pair |\n| --- | --- | --- | --- | --- |")
    for name, flags in variants.items():
        if args.only in (None, name):
            print(
                row(name, *run(args, flags, args.out.expanduser() / folder_name(args, name)), rows),
                flush=True,
            )
    return 0


def folder_name(args: argparse.Namespace, variant: str) -> str:
    """The name of a run: set, variant, minutes and seed."""
    name = f"{args.folder.resolve().name}-{variant}-{args.minutes:g}-{args.seed}"
    return name.replace(", ", "-").replace(" ", "-")


def trainings_of(flags: Sequence[str]) -> list[list[str]]:
    """The flags of each training of a variant, one after another."""
    parts: list[list[str]] = [[]]
    for flag in flags:
        parts.append([]) if flag == THEN else parts[-1].append(flag)
    return parts


def run(args: argparse.Namespace, flags: Sequence[str], workdir: Path) -> tuple[float, int, Path]:
    """Trains and embeds, what has not been yet: (minutes that the training took, steps, embeddings)."""
    embedded, took = workdir / "embeddings.npz", workdir / "minutes.txt"
    folder = args.folder.resolve()
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / "output.txt", "a", encoding="utf-8") as output:

        def command(module: str, *more: str) -> None:
            subprocess.run([sys.executable, "-m", module, *more], check=True, stdout=output, stderr=output)

        if not took.exists():
            began = time.perf_counter()
            trainings = trainings_of(flags)
            minutes = args.minutes / len(trainings)
            basic = ["--recipe=auto", "--monitor=none", f"--data=list:{folder / 'set.csv'}"]
            basic += [f"--seed={args.seed}"] + [f"--minutes={minutes}"] * (NOTHING not in flags)
            start = [f"--backbone={args.start}"] * bool(args.start)
            for i, training in enumerate(trainings, 1):
                runs = workdir if i == len(trainings) else workdir / f"training-{i}"
                command("simsiam_tf.pretrain", *basic, *start, f"--workdir={runs}", *training)
                start = [f"--weights={runs}"]
            took.write_text(f"{(time.perf_counter() - began) / 60:.1f}\n")
        if not embedded.exists():
            images = f"--data=folder:{folder}"  # the test rows, too
            command("simsiam_tf.embed", f"--weights={workdir}", images, f"--out={embedded}")
    records = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = max((json.loads(record).get("step", 0) for record in records), default=0)
    return float(took.read_text()), steps, embedded


def row(variant: str, minutes: float, steps: int, embedded: Path, rows: Sequence[Picture]) -> str:
    """A row of the table in Markdown; accuracies in %."""
    features = set_answers.prepare(set_answers.embedded(embedded, rows))
    found = set_answers.answers(features, rows)
    answers = [f"{100 * found[q]:.1f}" if q in found else "" for q in ("category", "pair")]
    return f"| {variant} | {minutes:.1f} | {steps:,} | {' | '.join(answers)} |"


if __name__ == "__main__":
    sys.exit(main())
