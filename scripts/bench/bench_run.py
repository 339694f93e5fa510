"""Measures the seconds that a run takes beside its steps: start, kNN monitor, records, checkpoints.

    python scripts/bench/bench_run.py -- --flagfile=flags/quickstart.cfg --epochs=3 --knn_every=1
    python scripts/bench/bench_run.py --starts --repeats=5 -- --flagfile=flags/quickstart.cfg

After `--` come the flags of `simsiam_tf.pretrain`. Every run is a process of its own and writes
into a folder that is removed afterwards. Shares are of the time from the end of the first
step, which compiles, to the end of training. `--starts` ends every run after its first step, `--end=N` after
step N. The losses are those of the last run. `--device=cpu` hides GPUs, `--device=gpu` ends without one.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from unittest import mock

import bench_harness

BESIDE = ("kNN monitor", "records", "checkpoints")
START = ("imports", "data and model", "baselines", "first step")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="number of runs")
    parser.add_argument("--starts", action="store_true", help="time only the start")
    parser.add_argument("--end", type=int, metavar="N", help="end every run after step N at the latest")
    parser.add_argument("--device", choices=("any", "cpu", "gpu"), default="any")
    parser.add_argument("--json", metavar="FILE", help="file for the results")
    parser.add_argument("flags", nargs="*", help="flags of simsiam_tf.pretrain, after --")
    args = parser.parse_args(argv)
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    end, runs, losses = 1 if args.starts else args.end, [], []
    for number in range(args.repeats):
        with tempfile.TemporaryDirectory() as folder:
            flags = [*args.flags, f"--workdir={folder}/run"]
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                pool.apply(bench_harness.check_gpu, (args.device,))
                seconds, losses = pool.apply(_timed_run, (flags, end, time.time()))
                runs.append(seconds)
        shown = "  ".join(f"{name} {seconds:.2f}" for name, seconds in runs[-1].items())
        print(f"{number + 1}/{args.repeats}: {shown} s", file=sys.stderr)
    metadata = {**bench_harness.machine_metadata(multiprocessing.cpu_count()), "flags": args.flags}
    print(_table(metadata, runs))
    bench_harness.write_json(args.json, {**metadata, "runs": runs, "losses": losses})
    return 0


class _Stop(Exception):  # noqa: N818
    """Ends a run at a step."""


def _timed_run(flags: list[str], end: int | None, began: float) -> tuple[dict[str, float], list[float]]:
    """(stage → seconds of one run, loss of every step).

    end: the step at which it ends; None: at its own. began: time.time() when its process was started.
    """
    from simsiam_tf.command_line import cli

    with cli.heavy_imports():
        from simsiam_tf.config import PretrainConfig
        from simsiam_tf.loop import loop as loops
        from simsiam_tf.training import pretraining

    config = cli.parse(PretrainConfig, flags)
    seconds: dict[str, float] = defaultdict(float, imports=time.time() - began)
    marks: dict[str, float] = {}
    running = loops.Loop
    advance, train_steps, add_steps = running._advance, running._train, loops.MetricsLog.add_steps
    losses: list[float] = []

    def timed(owner: object, method: str, stage: str) -> None:
        plain = getattr(owner, method)

        def call(*args, **kwargs):  # noqa: ANN202
            start = time.perf_counter()
            try:
                return plain(*args, **kwargs)
            finally:
                if (
                    stage not in BESIDE or "first step" in marks
                ):  # the checkpoint after the baselines comes before training
                    seconds[stage] += time.perf_counter() - start

        patches.enter_context(mock.patch.object(owner, method, call))

    def timed_advance(self, to):  # noqa: ANN001, ANN202
        value = advance(self, min(to, end or to))
        if "first step" not in marks:
            marks["first step"] = time.perf_counter()
            seconds["first step"] += marks["first step"] - marks["entered"]
        if end and self.step >= end:
            if self.step > 1:
                seconds["training"] = time.perf_counter() - marks["first step"]
            raise _Stop
        return value

    def timed_steps(self, rows, took):  # noqa: ANN001, ANN202
        losses.extend(map(float, rows[:, 0]))
        return add_steps(self, rows, took)

    def timed_training(self) -> int:  # noqa: ANN001
        marks["entered"] = time.perf_counter()
        status = train_steps(self)
        seconds["training"] = time.perf_counter() - marks["first step"]
        return status

    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.multiple(running, _advance=timed_advance, _train=timed_training))
        timed(pretraining, "build_pretraining", "data and model")
        timed(running, "_evaluate_baselines", "baselines")
        timed(running, "_trace", "first step")
        timed(running, "_finish", "the end")
        timed(running, "save", "checkpoints")
        timed(pretraining.Monitoring, "on_epoch_end", "kNN monitor")
        patches.enter_context(mock.patch.object(loops.MetricsLog, "add_steps", timed_steps))
        for method in ("add_steps", "add_record", "add_evaluation", "latest"):
            timed(loops.MetricsLog, method, "records")
        with contextlib.suppress(_Stop):
            pretraining.pretrain(config)
    return dict(seconds), losses


def _table(metadata: dict, runs: list[dict[str, float]]) -> str:
    def median(*names: str) -> float:
        return statistics.median(sum(run.get(name, 0.0) for name in names) for run in runs)

    lines = [
        f"{metadata['cpu']}, {metadata['date']}; {' '.join(metadata['flags'])}",
        f"median seconds of {len(runs)} runs:",
        *(f"{name:24}{median(name):8.2f}" for name in START),
        f"{'start to first step':24}{median(*START):8.2f}",
    ]
    if "training" in runs[0]:
        shares = lambda *names: statistics.median(  # noqa: E731
            sum(run.get(name, 0.0) for name in names) / run["training"] for run in runs
        )
        lines.append(f"{'training after it':24}{median('training'):8.2f}")
        lines += [f"  {name:22}{median(name):8.2f}{100 * shares(name):8.2f} %" for name in BESIDE]
        lines.append(f"  {'together':22}{median(*BESIDE):8.2f}{100 * shares(*BESIDE):8.2f} %")
        lines.append(f"{'final kNN, weights':24}{median('the end'):8.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
