"""Trains short runs, most of them with a fault, and draws their loss, std and effective rank.

    python scripts/draw_diagnoses.py --folder=runs/diagnoses --out=docs/img

The runs of one picture are the quickstart's command for three epochs, those of the other are runs of seconds
on digits; `--picture=diagnoses-digits.png` draws one alone. A finished run is not repeated.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

QUICK = ["--flagfile=flags/quickstart.cfg", "--epochs=3", "--monitor=none"]
DIGITS = [  # runs of seconds
    "--data=digits", "--backbone=resnet10", "--stem=small", "--width=0.125", "--d=64",
    "--predictor_hidden=32", "--projector_layers=2", "--batch_size=64", "--precision=float32",
    "--strategy=one_device",
    "--monitor=none", "--finish=none", "--log_every=5",
]  # fmt: skip
PICTURES = {  # file → (flags of all its runs, name of a work folder → the flags that this run adds)
    "diagnoses.png": (QUICK, {
        "the quickstart": [],
        "no stop-gradient": ["--stop_gradient=false"],
        "predictor not trained": ["--predictor=fixed"],
        "learning rate 5 times as high": ["--base_lr=4"],
        "25 times as high": ["--base_lr=20"],
    }),
    "diagnoses-digits.png": (DIGITS, {
        "weight decay 0.015": ["--base_lr=0.4", "--weight_decay=0.015", "--crop_area=0.6", "--epochs=7"],
        "base_lr 40, weight decay 1": ["--base_lr=40", "--weight_decay=1", "--epochs=5", "--log_every=2"],
    }),
}  # fmt: skip
METRICS = {  # key of a record → (axis label, limits of the axis)
    "loss": ("loss", (-1.05, 0.1)),
    "std": ("std of z, × √d", (0.0, 1.15)),
    "rank": ("effective rank", (0.0, None)),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Trains what is missing and draws; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", default="runs/diagnoses", help="parent of the work folders")
    parser.add_argument("--out", default=".", help="folder for the pictures")
    parser.add_argument("--picture", choices=PICTURES, help="draw this one alone")
    args = parser.parse_args(argv)
    for file, (shared, faults) in PICTURES.items():
        if args.picture not in (None, file):
            continue
        workdirs = {name: Path(args.folder, name.replace(" ", "_")) for name in faults}
        for name, workdir in workdirs.items():
            if not (workdir / "metrics.jsonl").exists():
                flags = [*shared, *faults[name], f"--workdir={workdir}"]
                command = [sys.executable, "-m", "simsiam_tf.pretrain", *flags]
                subprocess.run(command, check=False)  # a loss that is no number ends with status 4
        draw(workdirs, str(Path(args.out, file)))
    return 0


def draw(workdirs: dict[str, Path], path: str) -> None:
    """Writes a PNG with a column for each work folder: its metrics over the steps, under its diagnosis."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from simsiam_tf.html_report.history import read_history

    figure, axes = plt.subplots(
        len(METRICS),
        len(workdirs),
        figsize=(2.4 * len(workdirs), 5.2),
        sharex="col",
        sharey="row",
        squeeze=False,
    )
    for column, (name, workdir) in enumerate(workdirs.items()):
        history = read_history(workdir)
        steps = [r["step"] for r in history.records]
        for axis, (key, (label, _)) in zip(axes[:, column], METRICS.items(), strict=True):
            axis.plot(steps, [r[key] for r in history.records], color="#c83c14", linewidth=1.5)
            if not math.isfinite(history.records[-1]["loss"]):
                axis.axvline(steps[-1], color="gray", linestyle=":")  # not a number from here on
            axis.grid(alpha=0.3)
            if column == 0:
                axis.set_ylabel(label)
        axes[0, column].set_title(f"{history.diagnosis.name}\n{name}", fontsize=9)
        axes[-1, column].set_xlabel("step")
    for row, (_, limits) in zip(axes, METRICS.values(), strict=True):
        row[0].set_ylim(limits)  # last, since an upper limit of None is that of all curves
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
