"""python -m scripts.paper.transfer: transfer to detection and segmentation (Table 5), at a small scale."""

from __future__ import annotations

import dataclasses
import datetime
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.paper.campaign import machine_text
from scripts.paper.runs import last_line
from simsiam_tf.command_line import cli
from simsiam_tf.config import Config, TransferConfig, option
from simsiam_tf.runtime.atomic_files import atomic_write_text
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.runtime.progress import bar
from simsiam_tf.runtime.signals import INTERRUPTED

ABOUT = """Trains a ResNet-10 on Fashion-MNIST by SimSiam and, for comparison, with labels; then detectors and
segmenters of garments in scenes that begin with these weights or with random ones, on all training scenes and
on a tenth, for as many steps. Writes OUT.json and the tables of OUT.md. Stages that are done are not run
again; an interrupted one continues. flags/fashion_mnist/transfer/ has the settings.

    python -m scripts.paper.transfer --seeds=2"""

FLAGS = "flags/fashion_mnist/transfer"
STARTS = {"random": "random weights", "supervised": "trained with labels", "simsiam": "SimSiam"}
METRICS = {
    "detection": ("AP50", "AP"),
    "segmentation": ("mIoU", "pixel accuracy"),
}  # the first one is compared
SHARES = (0.1, 1.0)  # of the training scenes
PAPER = {"random": "35.9 / 44.0", "supervised": "74.4 / 58.2", "simsiam": "75.5 / 57.5"}  # VOC 07 / COCO


CLAIMS = (  # text, the other start, points of the first metric by which SimSiam is better by more than that
    ("weights trained by SimSiam transfer better than random ones", "random", 0.0),
    ("and as well as those trained with labels (within a point)", "supervised", -1.0),
)
LEAST_SEEDS = 2  # of which a claim is shown


@dataclasses.dataclass(frozen=True)
class TransferStudyConfig(Config):
    """Options of the comparison."""

    seeds: int = option(2, "runs of each detector and segmenter", "What", limits=(1, 20))
    folder: str = option("runs/transfer", "parent of the work folders", "Run")
    out: str | None = option(None, "path of the results, without .json and .md; FOLDER/results by default")
    dry_run: bool = option(False, "only list the commands of stages that are not done", "Only look")


@dataclasses.dataclass(frozen=True)
class Stage:
    """A command of the package, which a finished work folder makes superfluous."""

    command: str
    flags: Sequence[str]
    workdir: Path

    @property
    def result(self) -> dict | None:
        """Its result.json; None before its end, and for a pre-training, whose command ends at once then."""
        path = self.workdir / "result.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def __str__(self) -> str:
        return " ".join(["python -m", f"simsiam_tf.{self.command}", *self.flags])

    def run(self) -> None:
        """Runs or continues it. Raises UserError where it fails, and KeyboardInterrupt where it is ended."""
        self.workdir.mkdir(parents=True, exist_ok=True)
        log = self.workdir / "output.txt"
        with open(log, "a", encoding="utf-8") as out:
            command = [sys.executable, "-m", f"simsiam_tf.{self.command}", *self.flags]
            status = subprocess.run(command, stdout=out, stderr=out, check=False).returncode
        if status == INTERRUPTED:
            raise KeyboardInterrupt
        if status:
            raise UserError(f"{self}: exit status {status}: {last_line(log)} (in {log})")


def _stage(command: str, settings: str, workdir: Path, *more: str) -> Stage:
    return Stage(command, [f"--flagfile={FLAGS}/{settings}.cfg", *more, f"--workdir={workdir}"], workdir)


@dataclasses.dataclass(frozen=True)
class Trial:
    """A detector or segmenter: its task, share of the training scenes, first weights and seed."""

    task: str
    share: float
    start: str
    seed: int

    def stage(self, folder: Path) -> Stage:
        """Its command: of a share of the scenes so many epochs that the steps are as many."""
        config = cli.parse(TransferConfig, [f"--flagfile={FLAGS}/{self.task}.cfg"])
        more = [f"--{name}={getattr(config, name) / self.share:g}" for name in ("epochs", "warmup_epochs")]
        more += [f"--labels={self.share:g}", f"--seed={self.seed}"]
        weights = folder / ("simsiam" if self.start == "random" else self.start)
        more += [f"--weights={weights}", *["--init=random"] * (self.start == "random")]
        name = f"{self.task}-{self.share:g}-{self.start}-{self.seed}"
        return _stage("transfer", self.task, folder / name, *more)


def call(config: TransferStudyConfig) -> int:
    """Runs the stages that are not done, and writes the results after each."""
    folder = Path(config.folder).expanduser().absolute()
    out = Path(config.out).expanduser() if config.out else folder / "results"
    simsiam = _stage("pretrain", "simsiam", folder / "simsiam")
    with_labels = _stage("finetune", "supervised", folder / "supervised", f"--weights={folder / 'simsiam'}")
    trials = [Trial(t, p, s, k) for k in range(config.seeds) for t in METRICS for p in SHARES for s in STARTS]
    stages = {trial: trial.stage(folder) for trial in trials}
    missing = [stage for stage in (simsiam, with_labels, *stages.values()) if stage.result is None]
    if config.dry_run:
        print("\n".join(map(str, missing)))
        return 0
    try:
        for stage in [None, *bar(missing, "stages", delay=0)]:
            if stage:
                stage.run()
            done = {trial: stage.result for trial, stage in stages.items()}
            write(out, {trial: result for trial, result in done.items() if result})
    except KeyboardInterrupt:
        print("Interrupted. Rerun the same command to go on.", file=sys.stderr)
        return INTERRUPTED
    print(f"{out}.md")
    return 0


def write(out: Path, results: Mapping[Trial, dict]) -> None:
    """Writes OUT.json and OUT.md of the trials that are done."""
    runs = [
        {**dataclasses.asdict(trial), **{name: result[name] for name in METRICS[trial.task]}}
        for trial, result in results.items()
    ]
    about = {"machine": machine_text(1), "date": datetime.date.today().isoformat()}
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(out.with_name(f"{out.name}.json"), json.dumps({**about, "runs": runs}, indent=1) + "\n")
    atomic_write_text(out.with_name(f"{out.name}.md"), markdown(runs, **about))


def markdown(runs: Sequence[Mapping[str, Any]], machine: str, date: str) -> str:
    """The page of results. runs: the fields of each `Trial`, and its metrics in [0, 1]."""
    lines = [
        "# Transfer at a small scale (Table 5)", "",
        "`python -m scripts.paper.transfer` made this page: ResNet-10, trained for twelve epochs of "
        "Fashion-MNIST's 60,000 images of 48 pixels, by SimSiam or with labels. A RetinaNet or a DeepLabv3+ "
        "on it then learns garments in 600 scenes of 96 pixels, or in 60 of them, in 1,000 steps of 4 "
        f"(RetinaNet) or 300 of 8, and is tested on 300 others. {machine}; {date}.", "",
        "Mean ± standard deviation over the seeds, in %. The paper's row is AP50 of VOC 07 and of COCO, with "
        "other detectors ([where they differ](transfer.md)).", "",
        "| | training scenes | " + " | ".join(STARTS.values()) + " | seeds |", "| --- " * 6 + "|",
    ]  # fmt: skip
    for task, names in METRICS.items():
        for name in names:
            for share in SHARES:
                cells = [[r for r in runs if _is(r, task, share, start)] for start in STARTS]
                counts = {len(cell) for cell in cells}
                texts = [_mean([100 * r[name] for r in cell]) for cell in cells]
                lines.append(f"| {task}, {name} | {600 * share:g} | {' | '.join(texts)} | {min(counts)} |")
    lines.append("| the paper: VOC 07, COCO | all | " + " | ".join(PAPER[s] for s in STARTS) + " | 5, 1 |")
    lines += ["", "| the paper says | here |", "| --- | --- |"]
    for text, other, margin in CLAIMS:
        lines.append(f"| {text} | {_answer(runs, other, margin)} |")
    return "\n".join(lines) + "\n"


def _is(run: Mapping[str, Any], task: str, share: float, start: str) -> bool:
    return (run["task"], run["share"], run["start"]) == (task, share, start)


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def _answer(runs: Sequence[Mapping[str, Any]], other: str, margin: float) -> str:
    """How often SimSiam is over `margin` points above another start, of the same task, share and seed."""
    scores = {(r["task"], r["share"], r["seed"], r["start"]): 100 * r[METRICS[r["task"]][0]] for r in runs}
    gains = [
        scores[key] - scores[*key[:3], other]
        for key in scores
        if key[3] == "simsiam" and (*key[:3], other) in scores
    ]
    if not gains:
        return "–"
    held = sum(gain > margin for gain in gains)
    enough = len({r["seed"] for r in runs}) >= LEAST_SEEDS
    word = "not shown" if held <= len(gains) / 2 else "shown" if held == len(gains) and enough else "open"
    return (
        f"{word}: in {held} of {len(gains)} pairs of runs; {statistics.mean(gains):+.1f} points in the mean"
    )


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return cli.run_command(TransferStudyConfig, call, "scripts.paper.transfer", ABOUT, argv)


if __name__ == "__main__":
    sys.exit(main())
