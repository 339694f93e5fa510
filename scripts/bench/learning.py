"""Trains this package and other libraries on one set for the same time each, and asks the set's questions.

    bash scripts/sets.sh emoji sets/emoji
    python scripts/bench/learning.py sets/emoji --minutes=30 --out=runs/learning

The trainings run one after another: `pretrain --recipe=auto`, lightly-train's SimCLR with its defaults, and
SimSiam from lightly's parts; the last two on a ResNet-18, in an environment with PyTorch that is made in
OUT/peers. All see the same pictures, laid on white, and only those that the set does not hold out. The table
has the answers of plain features, and of the same features whitened; ours are whitened as they are exported.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout's package and scripts

import set_answers  # noqa: E402

from scripts.sets.set_file import Picture, read_set  # noqa: E402
from simsiam_tf.command_line import cli  # noqa: E402

HERE = Path(__file__).resolve().parent
REQUIREMENTS = ("torch==2.14.1", "torchvision==0.29.1", "lightly-train==0.18.0", "lightly==1.6.0")
PEERS = {"lightly-train SimCLR": "lightly_train_simclr", "lightly SimSiam": "lightly_simsiam"}
OURS = "simsiam_tf"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="a set that scripts/sets.sh has made")
    parser.add_argument("--minutes", type=float, default=30.0, help="time of each training")
    parser.add_argument("--out", type=Path, required=True, help="folder for pictures, runs and features")
    parser.add_argument("--pixels", type=int, default=48, help="side of the views of the other libraries")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", choices=(OURS, *PEERS), help="train this one; the others as they are in OUT"
    )
    parser.add_argument("--peers_python", type=Path, help="a Python that has " + ", ".join(REQUIREMENTS))
    args = parser.parse_args(argv)
    with cli.heavy_imports():
        import simsiam_tf.features  # noqa: F401
    try:
        rows = read_set(args.folder)
    except (OSError, ValueError) as error:
        print(f"learning.py: {error}", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    lists = write_pictures(args.folder, rows, args.out.resolve())
    table = {"raw pixels, 16×16": (0.0, set_answers.raw_pixels(args.folder, rows))}
    for name in (OURS, *PEERS):
        file = args.out.resolve() / f"{name.replace(' ', '_')}-{args.minutes:g}-{args.seed}.npy"
        took = file.with_suffix(".txt")
        if not file.exists() and args.only in (None, name):
            began = time.perf_counter()
            train_ours(args, lists, file) if name == OURS else train_peer(args, PEERS[name], lists, file)
            took.write_text(f"{(time.perf_counter() - began) / 60:.1f}\n")
        if file.exists():
            table[name] = (float(took.read_text()), np.load(file))
    print(markdown(table, rows))
    return 0


def write_pictures(folder: Path, rows: Sequence[Picture], out: Path) -> dict[str, Path]:
    """Writes the pictures as RGB files, once: {"train": file that names those to train on, "embed": all}."""
    from PIL import Image

    from simsiam_tf.data.images.render import render

    pictures, names = out / "pictures", []
    pictures.mkdir(exist_ok=True)
    for i, row in enumerate(rows):
        names.append(pictures / f"{i:06d}.png")
        if not names[-1].exists():
            Image.fromarray(render((folder / row.path).read_bytes())).save(names[-1])
    lists = {"train": out / "train.txt", "embed": out / "embed.txt"}
    for which, file in lists.items():
        kept = [n for n, row in zip(names, rows, strict=True) if which == "embed" or row.split != "test"]
        file.write_text("".join(f"{name}\n" for name in kept), encoding="utf-8")
    return lists


def train_ours(args: argparse.Namespace, lists: dict[str, Path], file: Path) -> None:
    """Trains by README's command and writes the features, as exported, of all pictures."""
    from simsiam_tf.features.embedding_file import read_embeddings

    run, embedded = file.with_suffix(""), file.with_suffix(".npz")
    flags = [f"--data=list:{lists['train']}", f"--minutes={args.minutes}", f"--seed={args.seed}"]
    command("simsiam_tf.pretrain", "--recipe=auto", f"--workdir={run}", *flags)
    command("simsiam_tf.embed", f"--weights={run}", f"--data=list:{lists['embed']}", f"--out={embedded}")
    np.save(file, read_embeddings(embedded).features)


def command(module: str, *flags: str) -> None:
    subprocess.run([sys.executable, "-m", module, *flags], check=True)


def train_peer(args: argparse.Namespace, script: str, lists: dict[str, Path], file: Path) -> None:
    """Runs a training of scripts/bench/peers in its own environment."""
    python = args.peers_python or args.out / "peers" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
    subprocess.run(
        [
            python, HERE / "peers" / f"{script}.py", f"--train={lists['train']}", f"--embed={lists['embed']}",
            f"--seconds={60 * args.minutes}", f"--pixels={args.pixels}", f"--seed={args.seed}",
            f"--work={file.with_suffix('')}", f"--out={file}",
        ],
        check=True,
    )  # fmt: skip


def markdown(table: dict[str, tuple[float, np.ndarray]], rows: Sequence[Picture]) -> str:
    """The table in Markdown. table: name → (minutes of the command, features [N, F])."""
    lines = ["| features | minutes | category | pair | category, whitened | pair, whitened |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for name, (minutes, features) in table.items():
        cells = []
        for whiten in (False, True):
            found = set_answers.answers(set_answers.prepare(features, whiten), rows)
            cells += [f"{100 * found[q]:.1f}" if q in found else "" for q in ("category", "pair")]
        lines.append(f"| {name} | {minutes:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
