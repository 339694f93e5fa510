"""Trains short runs, four of them with a fault, and draws their loss, std and effective rank.

    python scripts/draw_diagnoses.py --folder=runs/diagnoses --out=docs/img/diagnoses.png

Each is the quickstart's command for three epochs, under its fault. A finished run is not repeated.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FAULTS = {  # name of a work folder → the flags that the run adds to `QUICK`
    "the quickstart": [],
    "no stop-gradient": ["--stop_gradient=false"],
    "predictor not trained": ["--predictor=fixed"],
    "learning rate 5 times as high": ["--base_lr=4"],
    "25 times as high": ["--base_lr=20"],
}
QUICK = ["--flagfile=flags/quickstart.cfg", "--epochs=3", "--monitor=none"]
METRICS = {  # key of a record → (axis label, limits of the axis)
    "loss": ("loss", (-1.05, 0.1)),
    "std": ("std of z, × √d", (0.0, 1.15)),
    "rank": ("effective rank", (0.0, None)),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Trains what is missing and draws; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", default="runs/diagnoses", help="parent of the work folders")
    parser.add_argument("--out", default="diagnoses.png", help="the PNG to write")
    args = parser.parse_args(argv)
    for name, flags in FAULTS.items():
        workdir = Path(args.folder, name.replace(" ", "_"))
        if not (workdir / "metrics.jsonl").exists():
            command = [sys.executable, "-m", "simsiam_tf.pretrain", *QUICK, *flags, f"--workdir={workdir}"]
            subprocess.run(command, check=False)  # a loss that is no number ends with status 4
    draw({name: Path(args.folder, name.replace(" ", "_")) for name in FAULTS}, args.out)
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
        sharex=True,
        sharey="row",
        squeeze=False,
    )
    for column, (name, workdir) in enumerate(workdirs.items()):
        history = read_history(workdir)
        steps = [r["step"] for r in history.records]
        for axis, (key, (label, limits)) in zip(axes[:, column], METRICS.items(), strict=True):
            axis.plot(steps, [r[key] for r in history.records], color="#c83c14", linewidth=1.5)
            axis.set_ylim(limits)
            axis.grid(alpha=0.3)
            if column == 0:
                axis.set_ylabel(label)
        axes[0, column].set_title(f"{history.diagnosis.name}\n{name}", fontsize=9)
        axes[-1, column].set_xlabel("step")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
